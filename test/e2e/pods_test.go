package e2e

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/stage"
	"chaperone.dev/chaperone/pkg/event"
)

// cluster is a real API server, and a node of it that the daemon runs on. Nobody runs its
// pods: the tests make what kubelet and containerd would.
type cluster struct {
	*world
	api   *lab.KubeAPI
	slice string // of the ancestor, without ".slice"; empty with the cgroupfs driver
	nets  int
}

const podsDocument = `apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: agents}
spec:
  select:
    kubernetes: {namespace: agents, labels: {role: planner}}
---
apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: proven}
spec:
  select:
    kubernetes: {namespace: proven}
  identity: {issuer: cluster, tokenFile: /run/secrets/chaperone/token}
---
apiVersion: chaperone.dev/v1alpha1
kind: IdentityProvider
metadata: {name: cluster}
spec:
  issuer: "https://kubernetes.default.svc"
  audiences: [chaperone]
  caFile: "{{dir}}/cluster-ca.pem"
---
apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: images}
spec:
  principals: {subjects: ["system:serviceaccount:agents:agent@local"]}
  targets: ["*"]
  rules:
    - {name: withdrawn, when: "workload.image == 'registry.example/withdrawn:1'", then: deny, message: that image was withdrawn}
`

// objects are what a cluster's administrator would make. Anybody may read the keys that
// tokens are verified with.
const objects = `
apiVersion: v1
kind: Namespace
metadata: {name: agents}
---
apiVersion: v1
kind: Namespace
metadata: {name: proven}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: agent, namespace: agents}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: agent, namespace: proven}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: chaperoned, namespace: agents}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: chaperoned}
rules:
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: chaperoned}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: chaperoned}
subjects: [{kind: ServiceAccount, name: chaperoned, namespace: agents}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: keys}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:service-account-issuer-discovery"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:unauthenticated"}]
`

// newCluster starts all of it. The ancestor's name says which driver kubelet has.
func newCluster(t *testing.T, ancestor string) *cluster {
	t.Helper()
	// The server is where its tokens say that their issuer is.
	cover(t, "/etc/hosts", "127.0.0.1 localhost kubernetes.default.svc\n"+stage.Address+" "+stage.Host+"\n")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	api, err := lab.StartKubeAPI(ctx, lab.KubeAPIOptions{Port: 443})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := api.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{api: api}
	if name, ok := strings.CutSuffix(ancestor, ".slice"); ok {
		c.slice = name
	}
	c.world = setStage(t, stage.Options{
		Ancestor: ancestor, Postgres: map[string]string{"log_connections": "on"},
		Documents: map[string]string{
			"pods.yaml": podsDocument,
			"node.yaml": strings.TrimRight(stage.Documents()["node.yaml"], "\n") + `
  kubernetes: {kubeconfig: "{{dir}}/kubeconfig", nodeName: node-1}
`,
		},
	})
	c.kubectl(objects, "apply", "-f", "-")
	token, err := api.ServiceAccountToken(ctx, "agents", "chaperoned")
	if err != nil {
		t.Fatal(err)
	}
	config, err := api.WriteKubeconfig("chaperoned", "", token)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"kubeconfig": text, "cluster-ca.pem": api.CA().PEM()} {
		if err := os.WriteFile(c.Path(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Superuser(ctx, "CREATE ROLE direct LOGIN PASSWORD 'own' IN ROLE orders_reader"); err != nil {
		t.Fatal(err)
	}
	c.up()
	return c
}

func (c *cluster) kubectl(stdin string, words ...string) string {
	c.t.Helper()
	out, err := c.api.Kubectl(c.t.Context(), stdin, words...)
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// pod is one that the API knows, and its place on the node.
type pod struct {
	*cluster
	namespace, name, uid string
	net                  *lab.Netns // nil: the node's
}

// pod makes one in the API; node may be empty.
func (c *cluster) pod(namespace, name, node, role string) *pod {
	c.t.Helper()
	return c.podOf("registry.example/agent:1", namespace, name, node, role)
}

// podOf makes one of an image.
func (c *cluster) podOf(image, namespace, name, node, role string) *pod {
	c.t.Helper()
	spec := fmt.Sprintf("serviceAccountName: agent, containers: [{name: main, image: %q}]", image)
	if node != "" {
		spec += ", nodeName: " + node
	}
	c.kubectl(fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: %s, labels: {role: %s}}\nspec: {%s}\n",
		name, namespace, role, spec), "apply", "-f", "-")
	p := &pod{cluster: c, namespace: namespace, name: name}
	p.uid = c.kubectl("", "get", "pod", "--namespace", namespace, name, "-o", "jsonpath={.metadata.uid}")
	c.nets++
	inside, outside := fmt.Sprintf("10.30.%d.2/24", c.nets), fmt.Sprintf("10.30.%d.1/24", c.nets)
	p.net = newNetns(c.t, lab.NetnsOptions{
		Inside: prefixes(inside), Outside: prefixes(outside), Gateways: []netip.Addr{prefixes(outside)[0].Addr()},
	})
	return p
}

// bind is what a scheduler does.
func (p *pod) bind(node string) {
	p.t.Helper()
	p.kubectl(fmt.Sprintf(`{"apiVersion": "v1", "kind": "Binding", "metadata": {"name": %q}, "target": {"apiVersion": "v1", "kind": "Node", "name": %q}}`, p.name, node),
		"create", "--raw", fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/binding", p.namespace, p.name), "-f", "-")
}

// cgroup is the pod's, as kubelet names it.
func (p *pod) cgroup() string {
	if p.slice == "" {
		return filepath.Join(p.Cgroup(), "burstable", "pod"+p.uid)
	}
	pods := p.slice + "-kubepods"
	return filepath.Join(p.Cgroup(), pods+".slice", pods+"-burstable.slice",
		pods+"-burstable-pod"+strings.ReplaceAll(p.uid, "-", "_")+".slice")
}

// container is a fresh one's, as containerd names it.
func (p *pod) container() string {
	id := make([]byte, 32)
	_, _ = rand.Read(id) // never fails
	if p.slice == "" {
		return filepath.Join(p.cgroup(), hex.EncodeToString(id))
	}
	return filepath.Join(p.cgroup(), "cri-containerd-"+hex.EncodeToString(id)+".scope")
}

// start starts a process in a cgroup of the pod, with the pod's network, by way of a command.
func (p *pod) start(cgroup string, before ...string) *remote {
	p.t.Helper()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	words := append(before, self)
	if p.net != nil {
		words = append([]string{"nsenter", "--net=" + p.net.Path()}, words...)
	}
	cmd := exec.CommandContext(p.t.Context(), words[0], words[1:]...)
	cmd.Env = append(os.Environ(), "PGSSLROOTCERT="+p.Path("run", "trust", "ca.pem"))
	p.into(cmd, cgroup)
	return p.startRemote(cmd)
}

// session is what a process asks for, and direct what it asks for with its own password.
func (p *pod) direct() []string {
	return []string{"session", "user=direct", "password=own", "sslrootcert=" + p.Path("target-ca.pem")}
}

// eventually waits until what is asked for works, and returns the answer. Until then it
// may be refused by the kernel, and in no other way.
func (r *remote) eventually(words ...string) string {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		answer, err := r.try(words...)
		if err == nil {
			return answer
		}
		if !kernelSaysNo(err) || time.Now().After(deadline) {
			r.t.Fatalf("%s: %v", strings.Join(words, " "), err)
		}
	}
}

// unknown fails the test unless the kernel refuses what is asked for.
func (r *remote) unknown(words ...string) {
	r.t.Helper()
	if answer, err := r.try(words...); err == nil || !kernelSaysNo(err) {
		r.t.Fatalf("%s: got %q, %v", strings.Join(words, " "), answer, err)
	}
}

func kernelSaysNo(err error) bool {
	return strings.HasPrefix(err.Error(), "ECONNREFUSED ") || strings.HasPrefix(err.Error(), "EPERM ")
}

// isPlanner fails the test unless a session is a planner's, whatever password it has.
func (p *pod) isPlanner(r *remote) {
	p.t.Helper()
	want := "chaperone_" + p.namespace + "_" + strings.ReplaceAll(p.name, "-", "_") + "_"
	for _, words := range [][]string{
		{"session", "application_name=" + p.name},
		{"session", "user=direct", "password=own"},
	} {
		if answer := r.eventually(words...); !strings.HasPrefix(answer, want) {
			p.t.Fatalf("%s: the session of %s is %s", strings.Join(words, " "), p.name, answer)
		}
	}
}

// told waits until the daemon was told of all that the API server has by now: it is told in order.
func (c *cluster) told() {
	c.t.Helper()
	last := c.pod("agents", "last-"+strconv.Itoa(c.nets), "node-1", "planner")
	last.isPlanner(last.start(last.container()))
}

// A slice's name spells out its place, so it has no dash here.
func freshSlice() string {
	return "chaperonepods" + strconv.Itoa(os.Getpid()) + strings.ToLower(rand.Text()[:8]) + ".slice"
}

func TestPods(t *testing.T) {
	c := newCluster(t, freshSlice())
	planner := c.pod("agents", "planner-a", "node-1", "planner")
	first := planner.start(planner.container())
	other := c.pod("agents", "web", "node-1", "web")
	bystander := other.start(other.container())
	run := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			c.t = t
			f(t)
		})
	}
	run("a planner", func(t *testing.T) {
		planner.isPlanner(first)
		s := c.started(func(s event.SessionStarted) bool { return s.Application == planner.name })
		if s.Principal.Subject != "system:serviceaccount:agents:agent" || s.Principal.Issuer != "local" || s.Workload.Kind != "kubernetes" {
			t.Errorf("recorded as %+v, %+v", s.Principal, s.Workload)
		}
	})
	run("a bystander", func(t *testing.T) {
		if answer := bystander.eventually(other.direct()...); !strings.HasPrefix(answer, "direct ") {
			t.Errorf("its session is %s", answer)
		}
	})
	run("two containers are one job", func(t *testing.T) {
		first.ask("session", "application_name=one")
		planner.start(planner.container()).eventually("session", "application_name=two")
		one := c.started(func(s event.SessionStarted) bool { return s.Application == "one" })
		two := c.started(func(s event.SessionStarted) bool { return s.Application == "two" })
		if one.Workload.Job != two.Workload.Job {
			t.Errorf("they are the jobs %s and %s", one.Workload.Job, two.Workload.Job)
		}
	})
	run("a planner's own cgroups are the planner's", func(t *testing.T) {
		for _, name := range []string{filepath.Base(other.cgroup()), strings.TrimPrefix(other.cgroup(), c.Cgroup()), "kubepods.slice/kubepods-pod" + strings.ReplaceAll(other.uid, "-", "_") + ".slice"} {
			planner.isPlanner(planner.start(filepath.Join(planner.container(), name)))
		}
		planner.isPlanner(planner.start(filepath.Join(planner.cgroup(), filepath.Base(other.cgroup()))))
	})
	run("an image that policy denies", func(t *testing.T) {
		withdrawn := c.podOf("registry.example/withdrawn:1", "agents", "withdrawn", "node-1", "planner")
		r := withdrawn.start(withdrawn.container())
		c.until("the pod is a planner's", func() bool {
			answer, err := r.try("session", "application_name=withdrawn")
			if err == nil {
				t.Fatalf("it has the session %s", answer)
			}
			return strings.Contains(err.Error(), "that image was withdrawn")
		})
	})
	run("one with the node's network", func(t *testing.T) {
		host := c.pod("agents", "host", "node-1", "planner")
		host.net = nil
		host.isPlanner(host.start(host.container()))
	})
	run("a cgroup before the API tells of it", func(t *testing.T) {
		before := c.strays()
		early := c.pod("agents", "early", "", "planner")
		r := early.start(early.container())
		for range 20 {
			r.unknown("tcp", stage.Address+":5432")
		}
		c.noStrays(before)
		early.bind("node-1")
		early.isPlanner(r)
	})
	run("a pod of another node", func(t *testing.T) {
		away := c.pod("agents", "away", "node-2", "planner")
		web := c.pod("agents", "away-web", "node-2", "web")
		r, s := away.start(away.container()), web.start(web.container())
		c.told()
		r.unknown(away.direct()...)
		s.unknown(web.direct()...)
	})
	run("an API server that is away", func(t *testing.T) {
		late, web := c.pod("agents", "late", "", "planner"), c.pod("agents", "late-web", "", "web")
		c.api.Halt()
		planner.isPlanner(first)
		if answer := bystander.ask(other.direct()...); !strings.HasPrefix(answer, "direct ") {
			t.Errorf("the bystander's session is %s", answer)
		}
		r, s := late.start(late.container()), web.start(web.container())
		r.unknown(late.direct()...)
		s.unknown(web.direct()...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.api.Start(ctx); err != nil {
			t.Fatal(err)
		}
		late.bind("node-1")
		web.bind("node-1")
		late.isPlanner(r)
		s.eventually(web.direct()...)
	})
	run("labels that change", func(t *testing.T) {
		c.kubectl("", "label", "pod", "--namespace", "agents", "planner-a", "--overwrite", "role=web")
		c.told()
		planner.isPlanner(first)
		// A bystander's do count: it is a planner from then on.
		c.kubectl("", "label", "pod", "--namespace", "agents", "web", "--overwrite", "role=planner")
		c.told()
		other.isPlanner(bystander)
	})
	run("a pod that the API has no more", func(t *testing.T) {
		c.kubectl("", "delete", "pod", "--namespace", "agents", "planner-a", "--force", "--grace-period=0")
		c.told()
		planner.isPlanner(first)
	})
	run("an end", func(t *testing.T) {
		first.end()
		bystander.end()
		c.noRolesOf("planner_a")
	})
}

// noRolesOf waits until no role is left of the jobs whose name has the text. A pod's job
// ends with its cgroup, which kubelet removes.
func (c *cluster) noRolesOf(name string) {
	c.t.Helper()
	c.until("a server without roles of "+name, func() bool {
		// What a container's runtime and kubelet do when its last process is gone.
		_ = filepath.WalkDir(c.Cgroup(), func(path string, _ os.DirEntry, _ error) error {
			if strings.Contains(path, ".scope") {
				removeBelow(path)
			}
			return nil
		})
		removeBelow(c.Cgroup())
		roles, err := c.Roles(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		return !strings.Contains(strings.Join(roles, " "), name)
	})
}

// removeBelow removes the cgroups below a folder that hold no process.
func removeBelow(folder string) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if entry.IsDir() {
			removeBelow(filepath.Join(folder, entry.Name()))
			_ = os.Remove(filepath.Join(folder, entry.Name())) // one that holds a process stays
		}
	}
}

// What is a planner when the daemon dies is one when it comes back, whatever its labels say
// by then. One that it can't tell from a bystander any more is refused, never let go.
func TestPodsOutliveTheDaemon(t *testing.T) {
	c := newCluster(t, freshSlice())
	kept, changed, deleted := c.pod("agents", "kept", "node-1", "planner"), c.pod("agents", "changed", "node-1", "planner"), c.pod("agents", "deleted", "node-1", "planner")
	host := c.pod("agents", "host", "node-1", "planner")
	host.net = nil // nothing but its cgroup tells it from others there
	processes := map[*pod]*remote{}
	for _, p := range []*pod{kept, changed, deleted, host} {
		processes[p] = p.start(p.container())
		p.isPlanner(processes[p])
	}
	if err := c.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*pod{changed, host} {
		c.kubectl("", "label", "pod", "--namespace", "agents", p.name, "--overwrite", "role=web")
	}
	c.kubectl("", "delete", "pod", "--namespace", "agents", "deleted", "--force", "--grace-period=0")
	before := c.strays()
	for _, r := range processes {
		r.unknown("tcp", stage.Address+":5432")
	}
	c.noStrays(before)
	c.up()
	c.told()
	kept.isPlanner(processes[kept])
	for _, p := range []*pod{changed, deleted, host} {
		t.Run(p.name, func(t *testing.T) {
			answer, err := processes[p].try(p.direct()...)
			if err == nil && strings.HasPrefix(answer, "direct ") {
				t.Errorf("the planner goes its own way: its session is %s", answer)
			}
			if err != nil && strings.HasPrefix(err.Error(), "TIMEOUT ") {
				t.Errorf("the planner is let go, and held up elsewhere: %v", err)
			}
		})
	}
}

// Pods prove who they are by a token of the cluster's own, which they alone see.
func TestTokensOfPods(t *testing.T) {
	c := newCluster(t, freshSlice())
	token := func(audience string) string {
		return c.file("token", c.kubectl("", "create", "token", "--namespace", "proven", "agent", "--audience", audience))
	}
	// A mount namespace with the token where a projected volume would be.
	with := func(file string) []string {
		return []string{"unshare", "--mount", "sh", "-c",
			"mount -t tmpfs none /run && mkdir -p /run/secrets/chaperone && cp " + file + ` /run/secrets/chaperone/token && exec "$@"`, "sh"}
	}
	proven := c.pod("proven", "agent", "node-1", "planner")
	proven.isPlanner(proven.start(proven.container(), with(token("chaperone"))...))
	s := c.started(func(s event.SessionStarted) bool { return s.Application == "agent" })
	if s.Principal.Subject != "system:serviceaccount:proven:agent" || s.Principal.Issuer != "cluster" {
		t.Errorf("recorded as %+v", s.Principal)
	}
	for name, before := range map[string][]string{"without": nil, "elsewhere": with(token("somebody-else"))} {
		p := c.pod("proven", name, "node-1", "planner")
		r := p.start(p.container(), before...)
		c.until("a refusal of what isn't proven", func() bool {
			_, err := r.try("session")
			return err != nil && !kernelSaysNo(err)
		})
		r.refused("OTHER", "session")
	}
	c.refusal(event.ReasonNoIdentity)
}

// The same with kubelet's other driver, whose cgroups have names that nobody else's may have.
func TestPodsOfTheCgroupfsDriver(t *testing.T) {
	const kubepods = "kubepods"
	mount, err := lab.CgroupMount()
	if err != nil {
		t.Fatal(err)
	}
	// Other runs of this test take the same name.
	turn, err := os.Open(mount)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { turn.Close() })
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if err = unix.Flock(int(turn.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			t.Fatalf("waiting for the turn to make %s: %v", filepath.Join(mount, kubepods), err)
		}
	}
	if _, err := os.Stat(filepath.Join(mount, kubepods)); !errors.Is(err, os.ErrNotExist) {
		t.Skipf("%s is this machine's own kubelet's (%v)", filepath.Join(mount, kubepods), err)
	}
	c := newCluster(t, kubepods)
	planner, other := c.pod("agents", "planner-a", "node-1", "planner"), c.pod("agents", "web", "node-1", "web")
	planner.isPlanner(planner.start(planner.container()))
	planner.isPlanner(planner.start(filepath.Join(planner.container(), "kubepods", "burstable", "pod"+other.uid)))
	bystander := other.start(other.container())
	if answer := bystander.eventually(other.direct()...); !strings.HasPrefix(answer, "direct ") {
		t.Errorf("the bystander's session is %s", answer)
	}
}
