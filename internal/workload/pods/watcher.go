package pods

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/rs/zerolog"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// ErrUnknown means that the API server knows of no such pod on this node, or
// has not told of it yet.
var ErrUnknown = errors.New("no such pod is known")

// Options configure a [Watcher]. Config and Node are required.
type Options struct {
	// Config is how the API server is reached; see [Config].
	Config *rest.Config
	// Node is the name of this node, as in a pod's spec.nodeName.
	Node string
	// Changed is told of each pod that was added, changed in what [Pod] holds,
	// or deleted; [Watcher.Pod] has it as it is by then, or has it no more. It
	// is called for one pod after the other. Several changes of a pod may be
	// told as one. May be nil.
	Changed func(uid string)
	// Wait bounds how long Get waits for news; 0 means 3 s.
	Wait time.Duration
	Log  zerolog.Logger
}

// Watcher knows the pods of one node. Its methods may be called from any
// goroutine, before, during and after Run.
type Watcher struct {
	opts   Options
	client typedcorev1.PodInterface
	store  *store
}

// New makes a watcher. Nothing is sent before Run.
func New(opts Options) (*Watcher, error) {
	if opts.Config == nil {
		return nil, errors.New("pods: no configuration of the API server was given")
	}
	if opts.Node == "" {
		return nil, errors.New("pods: the node's name is not known; a DaemonSet gets it from the field spec.nodeName")
	}
	if opts.Wait == 0 {
		opts.Wait = 3 * time.Second
	}
	config := rest.CopyConfig(opts.Config)
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	w := &Watcher{opts: opts, store: newStore(opts.Node, opts.Log)}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return observer{w, next} })
	client, err := typedcorev1.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("pods: API server %s: %w", config.Host, err)
	}
	w.client = client.Pods(metav1.NamespaceAll)
	return w, nil
}

// Run watches until ctx is done. It is called once. An API server that can't
// be reached is no error: what was known stays known, the log says so, and it
// is tried again.
func (w *Watcher) Run(ctx context.Context) error {
	telling := make(chan struct{})
	go func() {
		defer close(telling)
		w.tell(ctx)
	}()
	// What client-go has to say is detail behind what is logged here.
	detail := funcr.New(func(_, message string) { w.opts.Log.Debug().Str("detail", message).Msg("watching pods") }, funcr.Options{})
	cache.NewReflectorWithOptions(lister{w}, &corev1.Pod{}, w.store, cache.ReflectorOptions{
		Logger: &detail, Name: "pods", Backoff: retry(),
	}).RunWithContext(klog.NewContext(ctx, detail))
	<-telling
	return nil
}

// retry is the time between attempts: from half a second to 10 s, each up to
// twice as long by chance, lest all nodes come at once. client-go's own goes
// up to 30 s, for which a new planner would stay unknown.
func retry() *wait.Backoff {
	return &wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 6, Cap: 10 * time.Second}
}

func (w *Watcher) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.store.wake:
		}
		for ctx.Err() == nil {
			uid, ok := w.store.next()
			if !ok {
				break
			}
			if w.opts.Changed != nil {
				w.opts.Changed(uid)
			}
		}
	}
}

// Synced tells whether the node's pods were listed. It stays true: later on
// pods may be out of date, which Err tells.
func (w *Watcher) Synced() bool {
	_, _, now := w.store.look("")
	return now.synced
}

// Err tells why the API server doesn't answer, or nil.
func (w *Watcher) Err() error {
	_, _, now := w.store.look("")
	return now.err
}

// Pod returns what is known of the pod whose cgroup has the UID.
func (w *Watcher) Pod(uid string) (Pod, bool) { return w.store.find(uid) }

// Get returns the pod whose cgroup has the UID, and waits for it when it is not
// known: kubelet learns of pods from the API server as well, and may be the
// first. The wait is bounded by ctx and by Options.Wait; the error then is
// [ErrUnknown].
func (w *Watcher) Get(ctx context.Context, uid string) (Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, w.opts.Wait)
	defer cancel()
	for {
		pod, ok, now := w.store.look(uid)
		if ok {
			return pod, nil
		}
		select {
		case <-now.moved:
			continue
		case <-ctx.Done():
		}
		switch {
		case now.err != nil:
			return Pod{}, fmt.Errorf("pod %s on node %s: %w, and the API server can't be asked: %w", uid, w.opts.Node, ErrUnknown, now.err)
		case !now.synced:
			return Pod{}, fmt.Errorf("pod %s on node %s: %w: the API server has not answered yet", uid, w.opts.Node, ErrUnknown)
		}
		return Pod{}, fmt.Errorf("pod %s on node %s: %w", uid, w.opts.Node, ErrUnknown)
	}
}

// lister asks the API server for this node's pods.
type lister struct{ w *Watcher }

// List implements [cache.ListerWatcher].
func (l lister) List(options metav1.ListOptions) (runtime.Object, error) {
	return l.ListWithContext(context.Background(), options)
}

// Watch implements [cache.ListerWatcher].
func (l lister) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return l.WatchWithContext(context.Background(), options)
}

// ListWithContext implements [cache.ListerWithContext].
func (l lister) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	options.FieldSelector = l.selector()
	list, err := l.w.client.List(ctx, options)
	l.w.failed(ctx, err)
	return list, err
}

// WatchWithContext implements [cache.WatcherWithContext].
func (l lister) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.FieldSelector = l.selector()
	events, err := l.w.client.Watch(ctx, options)
	l.w.failed(ctx, err)
	return events, err
}

// IsWatchListSemanticsUnSupported keeps the reflector from having the list sent
// as a stream. A node's pods fit into one answer, and while the server is away
// that way waits out its pause even when Run is to end.
func (l lister) IsWatchListSemanticsUnSupported() bool { return true }

func (l lister) selector() string {
	return fields.OneTermEqualSelector("spec.nodeName", l.w.opts.Node).String()
}

// observer sees each attempt to reach the API server. client-go makes ten
// before it reports one that failed, and a watch whose connection is closed
// unanswered, as a load balancer without servers does, it reports as a success.
type observer struct {
	w    *Watcher
	next http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (o observer) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := o.next.RoundTrip(request)
	switch {
	case err != nil:
		o.w.failed(request.Context(), err)
	case response.StatusCode == http.StatusOK:
		o.w.answered()
	}
	return response, err
}

// answered logs when the API server answers again.
func (w *Watcher) answered() {
	if news, _ := w.store.answered(nil); news {
		w.opts.Log.Info().Str("node", w.opts.Node).Msg("the API server tells of pods again")
	}
}

// failed logs when the API server stops to answer.
func (w *Watcher) failed(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return // nobody asks any more; or it answered: "list again"
	}
	news, known := w.store.answered(err)
	switch {
	case !news:
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		w.opts.Log.Error().Err(err).Str("node", w.opts.Node).Int("known", known).
			Msg("the API server refuses to tell of pods: the account needs the verbs list and watch on pods in all namespaces; what is known stays in use")
	default:
		w.opts.Log.Warn().Err(err).Str("node", w.opts.Node).Int("known", known).
			Msg("the API server can't be asked for pods; what is known stays in use")
	}
}
