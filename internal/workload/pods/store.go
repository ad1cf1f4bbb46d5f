package pods

import (
	"fmt"
	"reflect"
	"sync"

	"github.com/rs/zerolog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// store is what the reflector writes into: the node's pods, stripped. It holds
// as many as the API server has bound to the node.
type store struct {
	node string
	log  zerolog.Logger

	mu     sync.Mutex
	pods   map[types.UID]Pod // by the API's UID
	synced bool
	err    error         // why the API server doesn't answer; nil while it does
	moved  chan struct{} // closed, and made anew, when pods were written

	// What is to be told, in order, each pod once however often it changed.
	untold  []string
	waiting map[string]bool
	wake    chan struct{}
}

func newStore(node string, log zerolog.Logger) *store {
	return &store{node: node, log: log, pods: map[types.UID]Pod{}, moved: make(chan struct{}),
		waiting: map[string]bool{}, wake: make(chan struct{}, 1)}
}

// find returns the pod whose cgroup has the UID. Two mirrors that claim the
// same static pod can't both be right, and nothing says which is.
func (s *store) find(uid string) (Pod, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.findLocked(uid)
}

func (s *store) findLocked(uid string) (Pod, bool) {
	if len(uid) != staticUID {
		pod, ok := s.pods[types.UID(uid)]
		return pod, ok && !pod.Static
	}
	var found Pod
	n := 0
	for _, pod := range s.pods {
		if pod.Static && pod.UID == uid {
			found = pod
			n++
		}
	}
	if n != 1 {
		return Pod{}, false
	}
	return found, true
}

// state is what the store knows at one time.
type state struct {
	synced bool
	err    error           // why the API server doesn't answer
	moved  <-chan struct{} // closed when pods are written again
}

// look is find, with what a caller needs to wait for another answer.
func (s *store) look(uid string) (Pod, bool, state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pod, ok := s.findLocked(uid)
	return pod, ok, state{synced: s.synced, err: s.err, moved: s.moved}
}

// answered notes whether the API server answers, and tells whether that is news.
func (s *store) answered(err error) (news bool, known int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	news = (s.err == nil) != (err == nil)
	s.err = err
	return news, len(s.pods)
}

// next takes one pod that is to be told of.
func (s *store) next() (uid string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.untold) == 0 {
		s.untold = nil
		return "", false
	}
	uid, s.untold = s.untold[0], s.untold[1:]
	delete(s.waiting, uid)
	return uid, true
}

// Add implements [cache.ReflectorStore].
func (s *store) Add(object any) error {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("expected a pod, not %T", object)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(pod)
	s.move()
	return nil
}

// Update implements [cache.ReflectorStore].
func (s *store) Update(object any) error { return s.Add(object) }

// Delete implements [cache.ReflectorStore].
func (s *store) Delete(object any) error {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("expected a pod, not %T", object)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(pod.UID)
	s.move()
	return nil
}

// Replace implements [cache.ReflectorStore]. The list is whole: what it doesn't
// name was deleted while nobody watched.
func (s *store) Replace(objects []any, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	listed := make(map[types.UID]bool, len(objects))
	for _, object := range objects {
		pod, ok := object.(*corev1.Pod)
		if !ok {
			return fmt.Errorf("expected a pod, not %T", object)
		}
		listed[pod.UID] = true
		s.put(pod)
	}
	for uid := range s.pods {
		if !listed[uid] {
			s.drop(uid)
		}
	}
	s.synced = true
	s.move()
	return nil
}

// Resync implements [cache.ReflectorStore]. Nobody asks for it.
func (s *store) Resync() error { return nil }

func (s *store) put(object *corev1.Pod) {
	// The server was asked for this node's pods only. It is not trusted to
	// have understood: a proxy in between may drop a selector.
	if object.Spec.NodeName != s.node {
		return
	}
	pod := strip(object)
	old, known := s.pods[object.UID]
	if known && reflect.DeepEqual(old, pod) {
		return
	}
	s.pods[object.UID] = pod
	s.tell(pod.UID)
	if pod.Static && !known {
		if _, alone := s.findLocked(pod.UID); !alone {
			s.log.Warn().Str("uid", pod.UID).Str("namespace", pod.Namespace).Str("pod", pod.Name).
				Msg("several pods claim to mirror the same static pod; it counts as unknown until only one does")
		}
	}
}

func (s *store) drop(uid types.UID) {
	pod, ok := s.pods[uid]
	if !ok {
		return
	}
	delete(s.pods, uid)
	s.tell(pod.UID)
}

func (s *store) tell(uid string) {
	if !s.waiting[uid] {
		s.waiting[uid] = true
		s.untold = append(s.untold, uid)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *store) move() {
	close(s.moved)
	s.moved = make(chan struct{})
}
