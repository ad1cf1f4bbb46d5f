package pods

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Pod is what is kept of a pod. It is shared: its map and slice are not to be
// changed.
type Pod struct {
	// UID is the one in the name of the pod's cgroup. A static pod's is the
	// hash that kubelet made of its manifest, and not the UID of the mirror
	// that kubelet keeps of it in the API.
	UID            string
	Namespace      string
	Name           string
	ServiceAccount string // empty for a static pod
	Labels         map[string]string
	HostNetwork    bool   // it has the node's network, not one of its own
	Static         bool   // kubelet runs it from a manifest on the node
	Phase          string // Pending, Running, Succeeded, Failed or Unknown
	Containers     []Container
}

// Container is a container of a pod: first those of init, then the ordinary
// ones, then those that were put into the running pod (ephemeral).
type Container struct {
	Name  string
	Image string // as the pod asks for it
	ID    string // that the runtime gave it; empty until the API tells that it was started
}

// Image returns what a container of the pod was made from, as the pod asks for it. For
// one whose id the API does not tell yet it can be told if all of the pod's are made from
// the same image; else it is empty.
func (p Pod) Image(container string) string {
	isOther := func(c Container) bool { return c.Image != p.Containers[0].Image }
	isIt := func(c Container) bool { return container != "" && c.ID == container }
	if i := slices.IndexFunc(p.Containers, isIt); i >= 0 {
		return p.Containers[i].Image
	}
	if len(p.Containers) == 0 || slices.ContainsFunc(p.Containers, isOther) {
		return ""
	}
	return p.Containers[0].Image
}

// strip takes from the API's object what is kept.
func strip(object *corev1.Pod) Pod {
	pod := Pod{
		UID:            string(object.UID),
		Namespace:      object.Namespace,
		Name:           object.Name,
		ServiceAccount: object.Spec.ServiceAccountName,
		Labels:         object.Labels,
		HostNetwork:    object.Spec.HostNetwork,
		Phase:          string(object.Status.Phase),
	}
	spec, ids := &object.Spec, map[string]string{}
	for _, list := range [][]corev1.ContainerStatus{
		object.Status.InitContainerStatuses, object.Status.ContainerStatuses, object.Status.EphemeralContainerStatuses,
	} {
		for i := range list {
			// "containerd://<id>"
			if _, id, ok := strings.Cut(list[i].ContainerID, "://"); ok {
				ids[list[i].Name] = id
			}
		}
	}
	pod.Containers = make([]Container, 0, len(spec.InitContainers)+len(spec.Containers)+len(spec.EphemeralContainers))
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			pod.Containers = append(pod.Containers, Container{Name: list[i].Name, Image: list[i].Image, ID: ids[list[i].Name]})
		}
	}
	for i := range spec.EphemeralContainers {
		c := &spec.EphemeralContainers[i]
		pod.Containers = append(pod.Containers, Container{Name: c.Name, Image: c.Image, ID: ids[c.Name]})
	}
	if hash, ok := staticHash(object); ok {
		pod.UID, pod.Static = hash, true
	}
	return pod
}

// staticHash is the UID of the static pod that the object mirrors. Kubelet
// writes it into two annotations; the API server lets nobody add, change or
// remove this one after the pod was made. Anybody who may create pods may make
// a mirror, though, so it must not pass for a pod of the API: those have UUIDs,
// a hash has another form.
func staticHash(object *corev1.Pod) (string, bool) {
	hash, ok := object.Annotations[corev1.MirrorPodAnnotationKey]
	return hash, ok && len(hash) == staticUID && isHex(hash)
}
