package pods

import "strings"

// Leads tells whether pods' cgroups, or cgroups that lead to them, are made in a
// folder: those of the cgroupfs driver. Those of the systemd driver are slices.
func Leads(path string) bool {
	levels := strings.Split(strings.Trim(path, "/"), "/")
	if levels[0] == "kubelet" || levels[0] == "kubelet.slice" {
		levels = levels[1:]
	}
	switch len(levels) {
	case 0:
		return true
	case 1:
		return levels[0] == kubepods
	case 2:
		return levels[0] == kubepods && isQOS(levels[1])
	}
	return false
}
