package pods

import "testing"

func TestLeads(t *testing.T) {
	for path, want := range map[string]bool{
		"kubepods": true, "/kubepods": true, "kubepods/burstable": true, "kubepods/besteffort": true,
		"kubelet": true, "kubelet/kubepods": true, "kubelet.slice/kubepods/burstable": true,
		"": false, "jobs": false, "jobs/kubepods": false, "kubepods/other": false,
		"kubepods/burstable/pod5e3e7a1c-93a5-4a87-9b6e-0f0f5e0a4b1d": false,
		"kubepods/burstable/burstable":                               false,
		"kubepods.slice/kubepods-burstable.slice":                    false,
		"kubepods/pod5e3e7a1c-93a5-4a87-9b6e-0f0f5e0a4b1d/kubepods":  false,
	} {
		if got := Leads(path); got != want {
			t.Errorf("%q leads to pods: %t, want %t", path, got, want)
		}
	}
}
