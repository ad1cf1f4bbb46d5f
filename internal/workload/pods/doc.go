// Package pods tells which pod is which on one node: which pod a cgroup belongs
// to, and what the API server says of that pod.
//
// [ParseCgroup] reads a pod's UID from the path of a cgroup that kubelet made.
// [Watcher] keeps what the API server says of the pods that are bound to this
// node, and of no others, up to date. The two meet in the UID.
//
// The watcher needs no more rights than
//
//	apiVersion: rbac.authorization.k8s.io/v1
//	kind: ClusterRole
//	rules:
//	- apiGroups: [""]
//	  resources: [pods]
//	  verbs: [list, watch]
//
// A pod that is deleted in the API is not a pod that has ended: "kubectl delete
// --force" removes the object while its processes run on. Whoever enforces
// something on a pod's cgroup goes on until that cgroup is gone.
//
// The package knows nothing of policies, of kernel programs, or of sessions.
package pods
