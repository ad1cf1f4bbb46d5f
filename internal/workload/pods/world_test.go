package pods_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/workload/pods"

	"github.com/rs/zerolog"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// cluster is a real API server with the watcher's account in it. The watcher
// reaches it by way of a connection that can be cut.
type cluster struct {
	api    *lab.KubeAPI
	pods   typedcorev1.PodInterface // of the namespace planners, as admin
	cut    *cutter
	config string // kubeconfig of the watcher, through cut
}

// account has exactly the rights that the package's comment names.
const account = `
apiVersion: v1
kind: Namespace
metadata: {name: planners}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: planner, namespace: planners}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: chaperoned, namespace: planners}
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
subjects: [{kind: ServiceAccount, name: chaperoned, namespace: planners}]
`

func startCluster(t *testing.T) *cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	api, err := lab.StartKubeAPI(ctx, lab.KubeAPIOptions{})
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
	if _, err := api.Kubectl(ctx, account, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	token, err := api.ServiceAccountToken(ctx, "planners", "chaperoned")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{api: api, cut: newCutter(t, api.Addr())}
	if c.config, err = api.WriteKubeconfig("chaperoned", c.cut.addr(), token); err != nil {
		t.Fatal(err)
	}
	admin, err := pods.Config(api.AdminKubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	client, err := typedcorev1.NewForConfig(admin)
	if err != nil {
		t.Fatal(err)
	}
	c.pods = client.Pods("planners")
	return c
}

func (c *cluster) create(t *testing.T, name, node string, change ...func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: "planner",
			Containers: []corev1.Container{{Name: "main", Image: "registry.example/" + name + ":1"}},
		},
	}
	for _, f := range change {
		f(pod)
	}
	pod, err := c.pods.Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// mirror makes the pod what kubelet creates for a static pod.
func mirror(hash string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: hash, "kubernetes.io/config.hash": hash}
		pod.Spec.ServiceAccountName = ""
		pod.Spec.HostNetwork = true
	}
}

func (c *cluster) delete(t *testing.T, name string) {
	t.Helper()
	now := int64(0)
	if err := c.pods.Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
}

// watcher is a running Watcher and what it said.
type watcher struct {
	*pods.Watcher
	told  chan string
	log   *logLines
	asked *queries
}

func (c *cluster) watch(t *testing.T, node string) *watcher {
	t.Helper()
	config, err := pods.Config(c.config)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{told: make(chan string, 100), log: &logLines{}, asked: &queries{}}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		w.asked.next = next
		return w.asked
	})
	w.Watcher, err = pods.New(pods.Options{
		Config: config, Node: node, Wait: time.Minute, Log: zerolog.New(w.log).Level(zerolog.InfoLevel),
		Changed: func(uid string) { w.told <- uid },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return w
}

// next waits to be told of the pod, and of no other before it.
func (w *watcher) next(t *testing.T, uid string) {
	t.Helper()
	select {
	case got := <-w.told:
		if got != uid {
			t.Fatalf("told of pod %s, want %s", got, uid)
		}
	case <-time.After(time.Minute):
		t.Fatalf("not told of pod %s; log:\n%s", uid, w.log)
	}
}

// queries keeps what the API server is asked.
type queries struct {
	next http.RoundTripper
	mu   sync.Mutex
	kept []url.Values
}

func (q *queries) RoundTrip(request *http.Request) (*http.Response, error) {
	q.mu.Lock()
	q.kept = append(q.kept, request.URL.Query())
	q.mu.Unlock()
	return q.next.RoundTrip(request)
}

func (q *queries) all() []url.Values {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.kept)
}

// logLines keeps a log and lets a test wait for a line.
type logLines struct {
	mu   sync.Mutex
	text string
	more chan struct{}
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text += string(b)
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return len(b), nil
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text
}

// wait waits until the log has said the text n times.
func (l *logLines) wait(t *testing.T, text string, n int) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		l.mu.Lock()
		if strings.Count(l.text, text) >= n {
			l.mu.Unlock()
			return
		}
		if l.more == nil {
			l.more = make(chan struct{})
		}
		more := l.more
		l.mu.Unlock()
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("the log doesn't say %q %d times:\n%s", text, n, l)
		}
	}
}

// cutter passes TCP connections on, unless it is cut.
type cutter struct {
	listener net.Listener
	target   string
	serving  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	off   bool
}

func newCutter(t *testing.T, target string) *cutter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: listener, target: target, conns: map[net.Conn]bool{}}
	c.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			c.serving.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		c.set(true)
		c.serving.Wait()
	})
	return c
}

func (c *cutter) addr() string { return c.listener.Addr().String() }

// set cuts all connections and those to come, or mends it.
func (c *cutter) set(off bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = off
	if off {
		for conn := range c.conns {
			conn.Close()
		}
	}
}

// hold keeps a connection for set to close; false when it is cut already.
func (c *cutter) hold(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off {
		return false
	}
	c.conns[conn] = true
	return true
}

func (c *cutter) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !c.hold(client) || !c.hold(server) {
		return
	}
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1]) // its end is all that matters
			client.Close()
			server.Close()
		})
	}
	both.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, client)
	delete(c.conns, server)
}
