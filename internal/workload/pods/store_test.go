package pods

import (
	"testing"

	"github.com/rs/zerolog"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A real server sends this node's pods only; this is about one that doesn't.
func TestStoreTakesNoOtherNodesPods(t *testing.T) {
	pod := func(uid, node string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid)}, Spec: corev1.PodSpec{NodeName: node}}
	}
	s := newStore("mine", zerolog.Nop())
	for name, err := range map[string]error{
		"Replace": s.Replace([]any{pod("listed", "other"), pod("kept", "mine")}, "1"),
		"Add":     s.Add(pod("added", "other")),
		"Update":  s.Update(pod("updated", "other")),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, ok := s.find("kept"); !ok || len(s.pods) != 1 {
		t.Errorf("%d pods are kept, %v; want this node's one", len(s.pods), s.pods)
	}
	if uid, ok := s.next(); !ok || uid != "kept" {
		t.Errorf("told of %q, want this node's pod", uid)
	}
	if uid, ok := s.next(); ok {
		t.Errorf("told of %q, which is another node's", uid)
	}
}
