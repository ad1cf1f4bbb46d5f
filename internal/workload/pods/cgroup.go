package pods

import "strings"

// ParseCgroup tells which pod a cgroup belongs to, from the cgroup's path below
// the root of the cgroup file system that kubelet uses. The container is the id
// that the runtime gave it, and is empty for the pod's own level and for
// processes that run beside its containers (CRI-O's conmon, Kata's shim).
//
// Only paths that kubelet itself makes are a pod's, read from the root down:
//
//	kubepods/[QOS/]podUID/…                                      (cgroupfs driver)
//	kubepods.slice/[kubepods-QOS.slice/]kubepods[-QOS]-podUID.slice/…  (systemd driver)
//
// or the same below kubelet's --cgroup-root: any slice with the systemd driver,
// "kubelet" or "kubelet.slice" (kind's) with the cgroupfs driver. The first pod
// level decides. Whoever may make cgroups below it, or in any other place that
// was handed to them (a container's, a user's or a service's own cgroup), can
// name them as they like and is still what they were.
//
// A path that has empty or ".." elements is no pod's: it was seen from another
// cgroup namespace, and what is above is not known.
func ParseCgroup(path string) (uid, container string, ok bool) {
	rest := strings.TrimPrefix(path, "/")
	if len(path) > maxPath || !clean(rest) {
		return "", "", false
	}
	uid, below, ok := parseCgroupfs(rest)
	if !ok {
		uid, below, ok = parseSystemd(rest)
	}
	if !ok {
		return "", "", false
	}
	name, _, _ := strings.Cut(below, "/")
	return uid, parseContainer(name), true
}

const (
	maxPath     = 4096 // PATH_MAX
	kubepods    = "kubepods"
	podPrefix   = "pod"
	sliceSuffix = ".slice"
	scopeSuffix = ".scope"
)

// clean tells whether every element of the path is a cgroup's name.
func clean(path string) bool {
	for element := range strings.SplitSeq(path, "/") {
		if element == "" || element == "." || element == ".." {
			return false
		}
	}
	return true
}

// parseCgroupfs reads the levels down to the pod's, and returns what is below.
func parseCgroupfs(path string) (uid, rest string, ok bool) {
	name, rest, _ := strings.Cut(path, "/")
	// Other roots that the cgroupfs driver may be given can't be told from a
	// folder that somebody else owns.
	if name == "kubelet" || name == "kubelet.slice" {
		name, rest, _ = strings.Cut(rest, "/")
	}
	if name != kubepods {
		return "", "", false
	}
	name, rest, _ = strings.Cut(rest, "/")
	if isQOS(name) {
		name, rest, _ = strings.Cut(rest, "/")
	}
	uid, ok = strings.CutPrefix(name, podPrefix)
	if !ok || !isUID(uid, '-') {
		return "", "", false
	}
	return uid, rest, true
}

// parseSystemd does the same for slices. A slice's name spells out its place
// (systemd.slice(5)): a-b.slice is in a.slice, which is at the root. systemd
// gives parts of its tree away below services and scopes only, so nobody but
// the system has made a path that is slices from the root on.
func parseSystemd(path string) (uid, rest string, ok bool) {
	parent, below := "", "" // the slice so far; what of its name is below kubepods
	reached := false
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, "/")
		name, ok = strings.CutSuffix(name, sliceSuffix)
		if !ok {
			return "", "", false
		}
		segment := name
		if parent != "" {
			if segment, ok = strings.CutPrefix(name, parent+"-"); !ok {
				return "", "", false
			}
		}
		if segment == "" || strings.Contains(segment, "-") {
			return "", "", false
		}
		parent = name
		switch {
		case !reached:
			reached = segment == kubepods
		case below == "" && isQOS(segment):
			below = segment
		default:
			uid, ok = strings.CutPrefix(segment, podPrefix)
			if !ok || !isUID(uid, '_') {
				return "", "", false
			}
			return strings.ReplaceAll(uid, "_", "-"), path, true
		}
	}
	return "", "", false
}

// isQOS tells whether the level is that of a quality of service class.
// Guaranteed pods are right below kubepods.
func isQOS(level string) bool { return level == "burstable" || level == "besteffort" }

// isUID tells whether the text is a UID: of an object in the API server, a
// UUID; of a static pod, the 128-bit hash that kubelet made of its manifest.
func isUID(text string, hyphen byte) bool {
	switch len(text) {
	case staticUID:
		return isHex(text)
	case apiUID:
		for i := range len(text) {
			if i == 8 || i == 13 || i == 18 || i == 23 {
				if text[i] != hyphen {
					return false
				}
			} else if !isHexDigit(text[i]) {
				return false
			}
		}
		return true
	}
	return false
}

// Lengths of UIDs.
const (
	staticUID = 32
	apiUID    = 36
)

// parseContainer reads the level below the pod's: a container's id, or
// nothing. Anything there belongs to the pod, whatever it is called.
func parseContainer(name string) string {
	// With the cgroupfs driver containerd and Docker use the bare id, and
	// CRI-O keeps its prefix.
	id := strings.TrimSuffix(name, scopeSuffix)
	for _, runtime := range []string{"cri-containerd-", "crio-", "docker-"} {
		if bare, ok := strings.CutPrefix(id, runtime); ok {
			id = bare
			break
		}
	}
	const containerID = 64
	if len(id) != containerID || !isHex(id) {
		return ""
	}
	return id
}

func isHex(text string) bool {
	for i := range len(text) {
		if !isHexDigit(text[i]) {
			return false
		}
	}
	return true
}

func isHexDigit(b byte) bool { return '0' <= b && b <= '9' || 'a' <= b && b <= 'f' }
