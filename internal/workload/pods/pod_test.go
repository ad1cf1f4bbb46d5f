package pods_test

import (
	"testing"

	"chaperone.dev/chaperone/internal/workload/pods"
)

func TestImage(t *testing.T) {
	agent, shell := pods.Container{Name: "agent", Image: "agent:1", ID: "a"}, pods.Container{Name: "shell", Image: "shell:1", ID: "s"}
	early := pods.Container{Name: "early", Image: "agent:1"}
	for _, c := range []struct {
		name       string
		containers []pods.Container
		container  string
		want       string
	}{
		{"the one that it is", []pods.Container{agent, shell}, "s", "shell:1"},
		{"not told yet, of several images", []pods.Container{agent, shell}, "x", ""},
		{"not told yet, of one image", []pods.Container{agent, early}, "x", "agent:1"},
		{"beside the containers, of one image", []pods.Container{agent}, "", "agent:1"},
		{"beside the containers, of several images", []pods.Container{early, shell}, "", ""},
		{"a pod that is gone", nil, "a", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := (pods.Pod{Containers: c.containers}).Image(c.container); got != c.want {
				t.Errorf("image %q, want %q", got, c.want)
			}
		})
	}
}
