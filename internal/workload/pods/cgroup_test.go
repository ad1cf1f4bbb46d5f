package pods

import (
	"strings"
	"testing"
)

const (
	uid       = "7c3a1f52-0d7e-4f0a-9c55-1f2e3d4c5b6a"
	uidSlice  = "7c3a1f52_0d7e_4f0a_9c55_1f2e3d4c5b6a"
	otherUID  = "11111111_2222_3333_4444_555555555555"
	hash      = "99dcb84d2a34f7e338778606703258c4"
	container = "022c4ffba65e5031285fd427553e56c3fd6cc85a3a49f3fa2825d0a258d8a5d6"
)

func TestParseCgroup(t *testing.T) {
	const burstable = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uidSlice + ".slice"
	for _, tt := range []struct {
		name, path     string
		uid, container string
	}{
		{"systemd, containerd", burstable + "/cri-containerd-" + container + ".scope", uid, container},
		{"systemd, CRI-O", burstable + "/crio-" + container + ".scope", uid, container},
		{"systemd, CRI-O with crun's own level", burstable + "/crio-" + container + ".scope/container", uid, container},
		{"systemd, CRI-O's monitor is no container", burstable + "/crio-conmon-" + container + ".scope", uid, ""},
		{"systemd, cri-dockerd", burstable + "/docker-" + container + ".scope", uid, container},
		{"systemd, best effort", "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + uidSlice + ".slice/cri-containerd-" + container + ".scope", uid, container},
		{"systemd, guaranteed", "/kubepods.slice/kubepods-pod" + uidSlice + ".slice/cri-containerd-" + container + ".scope", uid, container},
		{"systemd, static", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + hash + ".slice/cri-containerd-" + container + ".scope", hash, container},
		{"systemd, the pod's level", burstable, uid, ""},
		{"systemd, kind", "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod" + uidSlice + ".slice/cri-containerd-" + container + ".scope", uid, container},
		{"systemd, a root of two levels", "/a.slice/a-b.slice/a-b-kubepods.slice/a-b-kubepods-pod" + uidSlice + ".slice", uid, ""},
		{"cgroupfs, containerd", "/kubepods/burstable/pod" + uid + "/" + container, uid, container},
		{"cgroupfs, CRI-O", "/kubepods/besteffort/pod" + uid + "/crio-" + container, uid, container},
		{"cgroupfs, CRI-O's monitor is no container", "/kubepods/besteffort/pod" + uid + "/crio-conmon-" + container, uid, ""},
		{"cgroupfs, guaranteed", "/kubepods/pod" + uid + "/" + container, uid, container},
		{"cgroupfs, static", "/kubepods/burstable/pod" + hash + "/" + container, hash, container},
		{"cgroupfs, kind", "/kubelet/kubepods/burstable/pod" + uid + "/" + container, uid, container},
		{"cgroupfs below a slice", "/kubelet.slice/kubepods/pod" + uid + "/" + container, uid, container},
		{"without the leading slash", "kubepods/pod" + uid, uid, ""},
		{"below the container", burstable + "/cri-containerd-" + container + ".scope/job/a", uid, container},
		{"something else in the pod", burstable + "/kata_overhead", uid, ""},

		{"a pod's tree in a container is the container's pod", burstable + "/cri-containerd-" + container + ".scope/kubepods.slice/kubepods-pod" + otherUID + ".slice/cri-containerd-" + container + ".scope", uid, container},
		{"a pod's tree in a pod is that pod", burstable + "/kubepods.slice/kubepods-pod" + otherUID + ".slice", uid, ""},
		{"a pod's name in a pod is that pod", "/kubepods/pod" + uid + "/pod" + hash + "/" + container, uid, ""},
		{"a slice that continues the pod's name", burstable + "/kubepods-burstable-pod" + uidSlice + "-kubepods.slice", uid, ""},

		{"the root", "/", "", ""},
		{"nothing", "", "", ""},
		{"no pod's level", "/kubepods.slice/kubepods-burstable.slice", "", ""},
		{"no pod's level with cgroupfs", "/kubepods/burstable", "", ""},
		{"a user's own tree", "/user.slice/user-1000.slice/user@1000.service/kubepods.slice/kubepods-pod" + uidSlice + ".slice", "", ""},
		{"a user's own tree with cgroupfs", "/user.slice/user-1000.slice/user@1000.service/kubepods/pod" + uid, "", ""},
		{"a service's own tree", "/system.slice/x.service/kubepods/pod" + uid + "/" + container, "", ""},
		{"another engine's container", "/docker/" + container + "/kubepods/pod" + uid + "/" + container, "", ""},
		{"another engine's container with systemd", "/system.slice/docker-" + container + ".scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + uidSlice + ".slice", "", ""},
		{"seen from another namespace", "/../kubepods/pod" + uid, "", ""},
		{"a way back up", "/kubepods/burstable/pod" + uid + "/../pod" + hash, "", ""},
		{"an empty element", "/kubepods//pod" + uid, "", ""},
		{"a slice in the wrong place", "/kubepods.slice/kubepods-burstable-pod" + uidSlice + ".slice", "", ""},
		{"a slice that names no parent", "/kubepods.slice/burstable.slice/pod" + uidSlice + ".slice", "", ""},
		{"quality of service twice", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-besteffort.slice/kubepods-burstable-besteffort-pod" + uidSlice + ".slice", "", ""},
		{"a name that looks like kubepods", "/kubepodsx.slice/kubepodsx-pod" + uidSlice + ".slice", "", ""},
		{"systemd's spelling with cgroupfs", "/kubepods/pod" + uidSlice, "", ""},
		{"upper case", "/kubepods/pod" + strings.ToUpper(uid), "", ""},
		{"too short", "/kubepods/pod" + uid[1:], "", ""},
		{"no hash", "/kubepods/podzzdcb84d2a34f7e338778606703258c4", "", ""},
		{"removed", "/kubepods/pod" + uid + " (deleted)", "", ""},
		{"containerd without systemd below kubelet with it", "/system.slice/containerd.service/kubepods-burstable-pod" + uidSlice + ".slice:cri-containerd:" + container, "", ""},
		{"longer than a path can be", "/kubepods/pod" + uid + strings.Repeat("/a", maxPath), "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gotUID, gotContainer, ok := ParseCgroup(tt.path)
			if gotUID != tt.uid || gotContainer != tt.container || ok != (tt.uid != "") {
				t.Errorf("ParseCgroup(%q) = %q, %q, %v; want %q, %q", tt.path, gotUID, gotContainer, ok, tt.uid, tt.container)
			}
		})
	}
}

// Whatever a path says, what is made below it doesn't change whose it is.
func FuzzParseCgroup(f *testing.F) {
	pod := "/kubepods.slice/kubepods-pod" + uidSlice + ".slice/cri-containerd-" + container + ".scope"
	for _, path := range []string{
		"/", "", pod, "/kubepods/burstable/pod" + uid + "/" + container, "/kubelet/kubepods/pod" + hash,
		"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + uidSlice + ".slice", "/../kubepods/pod" + uid, "/kubepods.slice/-.slice",
	} {
		f.Add(path, "kubepods.slice/kubepods-pod"+otherUID+".slice")
		f.Add(path, "kubepods/pod"+hash)
	}
	f.Fuzz(func(t *testing.T, path, below string) {
		gotUID, gotContainer, ok := ParseCgroup(path)
		if !ok {
			if gotUID != "" || gotContainer != "" {
				t.Fatalf("ParseCgroup(%q) = %q, %q, though it is no pod's", path, gotUID, gotContainer)
			}
			return
		}
		if !isUID(gotUID, '-') {
			t.Fatalf("ParseCgroup(%q) gives the UID %q", path, gotUID)
		}
		// The cgroup of the pod, spelled by us as kubelet does, is in the path.
		level := "pod" + gotUID
		slice := "-pod" + strings.ReplaceAll(gotUID, "-", "_") + ".slice"
		if !strings.Contains("/"+path+"/", "/"+level+"/") && !strings.Contains(path+"/", slice+"/") {
			t.Fatalf("ParseCgroup(%q) = %q, which is not in it", path, gotUID)
		}
		deeper := path + "/" + below
		if deeperUID, _, ok := ParseCgroup(deeper); ok && deeperUID != gotUID {
			t.Fatalf("%q is pod %s, and %q below it is pod %s", path, gotUID, deeper, deeperUID)
		}
	})
}
