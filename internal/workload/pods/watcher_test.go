package pods_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/workload/pods"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

const (
	hash  = "99dcb84d2a34f7e338778606703258c4"
	hash2 = "b1e89a2fcc688644de3eb95aee8025ce"
)

func TestWatcher(t *testing.T) {
	c := startCluster(t)
	t.Run("knows this node's pods and no others", c.testKnows)
	t.Run("tells of each change that matters", c.testTells)
	t.Run("finds static pods by their hash", c.testStatic)
	t.Run("waits for a pod whose cgroup came first", c.testGet)
	t.Run("keeps what it knows while the API server is away", c.testOutage)
	t.Run("lists again when its place in the history is gone", c.testGone)
	t.Run("says which right is missing", c.testForbidden)
}

func (c *cluster) testKnows(t *testing.T) {
	mine := c.create(t, "mine", "knows", func(pod *corev1.Pod) {
		pod.Spec.HostNetwork = true
		pod.Spec.InitContainers = []corev1.Container{{Name: "setup", Image: "registry.example/setup:2"}}
	})
	other := c.create(t, "other", "knows-not")
	w := c.watch(t, "knows")

	got, err := w.Get(t.Context(), string(mine.UID))
	if err != nil {
		t.Fatal(err)
	}
	want := pods.Pod{
		UID: string(mine.UID), Namespace: "planners", Name: "mine", ServiceAccount: "planner",
		Labels: map[string]string{"app": "mine"}, HostNetwork: true, Phase: "Pending",
		Containers: []pods.Container{{Name: "setup", Image: "registry.example/setup:2"}, {Name: "main", Image: "registry.example/mine:1"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the pod differs (-want +got):\n%s", diff)
	}
	if !w.Synced() || w.Err() != nil {
		t.Errorf("synced %v, error %v; want the API server to have answered", w.Synced(), w.Err())
	}
	w.next(t, string(mine.UID))

	// A second pod of each node: when the later one of this node is known, the
	// earlier one of the other node would have been seen as well.
	other2 := c.create(t, "other2", "knows-not")
	mine2 := c.create(t, "mine2", "knows")
	w.next(t, string(mine2.UID))
	for _, pod := range []*corev1.Pod{other, other2} {
		if found, ok := w.Pod(string(pod.UID)); ok {
			t.Errorf("pod %s of node %s is known: %+v", pod.Name, pod.Spec.NodeName, found)
		}
	}
	for _, query := range w.asked.all() {
		if selector := query.Get("fieldSelector"); selector != "spec.nodeName=knows" {
			t.Errorf("the API server was asked for pods with the selector %q, want this node's only", selector)
		}
	}
}

func (c *cluster) testTells(t *testing.T) {
	w := c.watch(t, "tells")
	pod := c.create(t, "changing", "tells")
	uid := string(pod.UID)
	w.next(t, uid)

	patch := func(subresource, change string) {
		t.Helper()
		var sub []string
		if subresource != "" {
			sub = []string{subresource}
		}
		if _, err := c.pods.Patch(t.Context(), "changing", types.StrategicMergePatchType, []byte(change), metav1.PatchOptions{}, sub...); err != nil {
			t.Fatal(err)
		}
	}
	// What isn't kept isn't told: the next thing told must be the label.
	patch("", `{"metadata":{"annotations":{"note":"nobody looks at this"}}}`)
	patch("", `{"metadata":{"labels":{"role":"executor"}}}`)
	w.next(t, uid)
	if got, _ := w.Pod(uid); got.Labels["role"] != "executor" {
		t.Errorf("labels are %v after role=executor was set", got.Labels)
	}
	patch("status", `{"status":{"phase":"Running"}}`)
	w.next(t, uid)
	if got, _ := w.Pod(uid); got.Phase != "Running" {
		t.Errorf("phase is %q, want Running", got.Phase)
	}
	patch("status", `{"status":{"containerStatuses":[{"name":"main","image":"registry.example/changing:1","imageID":"","ready":true,"restartCount":0,"containerID":"containerd://c0ffee"}]}}`)
	w.next(t, uid)
	if got, _ := w.Pod(uid); got.Containers[0].ID != "c0ffee" {
		t.Errorf("containers are %+v, want the id that the runtime gave", got.Containers)
	}
	patch("ephemeralcontainers", `{"spec":{"ephemeralContainers":[{"name":"debug","image":"registry.example/shell:1"}]}}`)
	w.next(t, uid)
	if got, _ := w.Pod(uid); len(got.Containers) != 2 || got.Containers[1].Name != "debug" {
		t.Errorf("containers are %v, want the debugging one too", got.Containers)
	}
	c.delete(t, "changing")
	w.next(t, uid)
	if got, ok := w.Pod(uid); ok {
		t.Errorf("the deleted pod is still known: %+v", got)
	}

	// The same name again is another pod.
	again := c.create(t, "changing", "tells")
	w.next(t, string(again.UID))
	if _, ok := w.Pod(uid); ok {
		t.Error("the deleted pod is known again, as its successor of the same name is")
	}
}

func (c *cluster) testStatic(t *testing.T) {
	w := c.watch(t, "static")
	object := c.create(t, "proxy", "static", mirror(hash))
	w.next(t, hash)
	if got, ok := w.Pod(hash); !ok || !got.Static || got.Name != "proxy" || got.UID != hash || !got.HostNetwork {
		t.Errorf("Pod(%s) = %+v, %v; want the static pod proxy", hash, got, ok)
	}
	if _, ok := w.Pod(string(object.UID)); ok {
		t.Error("the static pod is known by its mirror's UID, which no cgroup has")
	}

	// Who may create pods may create mirrors. None passes for a pod of the API.
	victim := c.create(t, "victim", "static")
	w.next(t, string(victim.UID))
	forged := c.create(t, "forged", "static", mirror(string(victim.UID)))
	w.next(t, string(forged.UID))
	if got, ok := w.Pod(string(victim.UID)); !ok || got.Name != "victim" {
		t.Errorf("Pod(%s) = %+v, %v; want the pod that has this UID", victim.UID, got, ok)
	}
	// Nor does one that only names a hash, without being a mirror.
	hint := c.create(t, "hint", "static", func(pod *corev1.Pod) {
		pod.Annotations = map[string]string{"kubernetes.io/config.hash": hash2}
	})
	w.next(t, string(hint.UID))
	if got, ok := w.Pod(hash2); ok {
		t.Errorf("Pod(%s) = %+v though it is no mirror", hash2, got)
	}

	// Of two that claim the same static pod neither is believed.
	c.create(t, "usurper", "static", mirror(hash))
	w.next(t, hash)
	if got, ok := w.Pod(hash); ok {
		t.Errorf("Pod(%s) = %+v though two pods claim it", hash, got)
	}
	w.log.wait(t, "several pods claim to mirror the same static pod", 1)
	c.delete(t, "usurper")
	w.next(t, hash)
	if got, ok := w.Pod(hash); !ok || got.Name != "proxy" {
		t.Errorf("Pod(%s) = %+v, %v; want proxy again", hash, got, ok)
	}
}

func (c *cluster) testGet(t *testing.T) {
	w := c.watch(t, "get")
	type answer struct {
		pod pods.Pod
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		pod, err := w.Get(t.Context(), hash)
		answers <- answer{pod, err}
	}()
	c.create(t, "late", "get", mirror(hash))
	got := <-answers
	if got.err != nil || got.pod.Name != "late" {
		t.Errorf("Get = %+v, %v; want the pod that came later", got.pod, got.err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if pod, err := w.Get(ctx, hash2); !errors.Is(err, pods.ErrUnknown) {
		t.Errorf("Get of no pod = %+v, %v; want ErrUnknown", pod, err)
	}
}

func (c *cluster) testOutage(t *testing.T) {
	stays := c.create(t, "stays", "outage")
	w := c.watch(t, "outage")
	w.next(t, string(stays.UID))

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c.api.Halt()
	w.log.wait(t, "can't be asked for pods; what is known stays in use", 1)
	if got, ok := w.Pod(string(stays.UID)); !ok || got.Name != "stays" {
		t.Errorf("Pod = %+v, %v while the API server is away; want what was known", got, ok)
	}
	if w.Err() == nil {
		t.Error("Err is nil while the API server is away")
	}
	short, cancelGet := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancelGet()
	if _, err := w.Get(short, hash); !errors.Is(err, pods.ErrUnknown) || !strings.Contains(err.Error(), "the API server can't be asked") {
		t.Errorf("Get while the API server is away: %v; want it said", err)
	}

	if err := c.api.Start(ctx); err != nil {
		t.Fatal(err)
	}
	later := c.create(t, "later", "outage")
	w.next(t, string(later.UID)) // and of nothing that stayed as it was
	w.log.wait(t, "the API server tells of pods again", 1)
	if _, ok := w.Pod(string(stays.UID)); !ok {
		t.Error("the pod that outlived the outage is not known any more")
	}
}

// Restarting the API server empties its memory of past changes, so a watcher
// that missed some of them can't go on where it was (410 Gone).
func (c *cluster) testGone(t *testing.T) {
	stays := c.create(t, "keeps", "gone")
	w := c.watch(t, "gone")
	w.next(t, string(stays.UID))
	leaves := c.create(t, "leaves", "gone")
	w.next(t, string(leaves.UID))

	c.cut.set(true)
	w.log.wait(t, "can't be asked for pods", 1)
	c.delete(t, "leaves")
	comes := c.create(t, "comes", "gone")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c.api.Halt()
	if err := c.api.Start(ctx); err != nil {
		t.Fatal(err)
	}
	c.cut.set(false)

	// Told in this order the pods come from a list; the watch has the deletion first.
	w.next(t, string(comes.UID))
	w.next(t, string(leaves.UID))
	if _, ok := w.Pod(string(leaves.UID)); ok {
		t.Error("the pod that was deleted unseen is still known")
	}
	if _, ok := w.Pod(string(stays.UID)); !ok {
		t.Error("the pod that stayed is not known any more")
	}
}

func (c *cluster) testForbidden(t *testing.T) {
	if _, err := c.api.Kubectl(t.Context(), "", "delete", "clusterrolebinding", "chaperoned"); err != nil {
		t.Fatal(err)
	}
	w := c.watch(t, "forbidden")
	w.log.wait(t, "needs the verbs list and watch on pods", 1)
	if w.Synced() {
		t.Error("synced without the right to list")
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	for name, tt := range map[string]struct {
		opts pods.Options
		want string
	}{
		"configuration": {pods.Options{Node: "n"}, "no configuration of the API server"},
		"node":          {pods.Options{Config: &rest.Config{Host: "https://127.0.0.1:1"}}, "the node's name is not known"},
		"bad CA": {pods.Options{Node: "n", Config: &rest.Config{Host: "https://127.0.0.1:1",
			TLSClientConfig: rest.TLSClientConfig{CAFile: "/nonexistent/ca.crt"}}}, "/nonexistent/ca.crt"},
	} {
		if _, err := pods.New(tt.opts); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", name, err, tt.want)
		}
	}
	if _, err := pods.Config("/nonexistent/kubeconfig"); err == nil || !strings.Contains(err.Error(), "/nonexistent/kubeconfig") {
		t.Errorf("a kubeconfig that isn't there: %v; want its name", err)
	}
}
