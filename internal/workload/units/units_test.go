package units_test

import (
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/workload/units"
)

func TestParseCgroup(t *testing.T) {
	const user = "/user.slice/user-1000.slice/user@1000.service"
	tests := []struct{ name, cgroup, want string }{
		{"service", "/system.slice/planner.service", "planner.service"},
		{"without a leading slash", "system.slice/planner.service", "planner.service"},
		{"with slashes too many", "//system.slice///planner.service/", "planner.service"},
		{"instance", "/system.slice/system-planner.slice/planner@x.service", "planner@x.service"},
		{"escaped instance", `/system.slice/system-planner.slice/planner@a\x2db-c.service`, `planner@a\x2db-c.service`},
		{"scope", "/system.slice/run-r0123.scope", "run-r0123.scope"},
		{"scope in a slice of the root", "/planners.slice/planners-a.slice/planner-1.scope", "planner-1.scope"},
		{"session", "/user.slice/user-1000.slice/session-2.scope", "session-2.scope"},
		{"systemd itself", "/init.scope", "init.scope"},
		{"socket with Accept=", "/system.slice/planner.socket", "planner.socket"},
		{"mount", "/system.slice/home-a.mount", "home-a.mount"},
		{"name that had to be escaped", "/system.slice/_cpu.service", "cpu.service"},
		{"name that begins with the mark", "/system.slice/__x.service", "_x.service"},
		{"escaped slice", "/_cpu.slice/planner.service", "planner.service"},
		{"user's unit", user + "/app.slice/foo.service", "user@1000.service"},

		{"cgroup inside", "/system.slice/planner.service/worker", "planner.service"},
		{"unit inside a unit", "/system.slice/planner@x.service/other.service", "planner@x.service"},
		{"slices inside a unit", "/system.slice/planner@x.service/system.slice/other.service", "planner@x.service"},
		{"unit inside a scope", "/planner-1.scope/system.slice/sshd.service", "planner-1.scope"},
		{"control process", "/system.slice/planner.service/.control", "planner.service"},

		{"root", "/", ""},
		{"nothing", "", ""},
		{"slice", "/system.slice", ""},
		{"slice in a slice", "/system.slice/system-planner.slice/", ""},
		{"slice with an instance", "/a@b.slice/planner.service", ""},
		{"slice without a name", "/.slice/planner.service", ""},
		{"template", "/system.slice/planner@.service", ""},
		{"instance of nothing", "/system.slice/@x.service", ""},
		{"no type", "/system.slice/planner", ""},
		{"unknown type", "/system.slice/planner.exe", ""},
		{"type only", "/system.slice/.service", ""},
		{"characters that no unit has", "/system.slice/pla nner.service", ""},
		{"unit below what is none", "/chaperone/jobs/planner.service", ""},
		{"pod of a kubelet without systemd", "/kubepods/burstable/podx/planner.service", ""},
		{"way out", "/system.slice/../planner.service", ""},
		{"too long", "/system.slice/" + strings.Repeat("a", 248) + ".service", ""},
		{"as long as can be", "/system.slice/" + strings.Repeat("a", 247) + ".service", strings.Repeat("a", 247) + ".service"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, ok := units.ParseCgroup(test.cgroup)
			if got != test.want || ok != (test.want != "") {
				t.Errorf("%q belongs to %q (%t), want %q", test.cgroup, got, ok, test.want)
			}
		})
	}
}

func TestParseUserCgroup(t *testing.T) {
	const manager = "/user.slice/user-1000.slice/user@1000.service"
	tests := []struct{ name, cgroup, want string }{
		{"service", manager + "/app.slice/foo.service", "foo.service"},
		{"instance in slices", manager + "/app.slice/app-foo.slice/foo@1.service/inside", "foo@1.service"},
		{"scope without a slice", manager + "/run-1.scope", "run-1.scope"},
		{"manager itself", manager, ""},
		{"manager's slice", manager + "/app.slice", ""},
		{"system unit", "/system.slice/foo.service/app.slice/bar.service", ""},
		{"session", "/user.slice/user-1000.slice/session-2.scope/foo.service", ""},
		{"no user's id", "/user.slice/user@root.service/foo.service", ""},
		{"manager inside a unit", "/system.slice/planner.service/user@1000.service/foo.service", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, uid, ok := units.ParseUserCgroup(test.cgroup)
			if got != test.want || ok != (test.want != "") || (ok && uid != "1000") {
				t.Errorf("%q belongs to %q of %q (%t), want %q", test.cgroup, got, uid, ok, test.want)
			}
		})
	}
}

func TestInSlices(t *testing.T) {
	for cgroup, want := range map[string]bool{
		"": true, "/": true, "system.slice": true, "/system.slice/system-planner.slice": true,
		"system.slice/planner.service": false, "init.scope": false, "chaperone": false,
		"system.slice/planner.service/a.slice": false, "a@b.slice": false, "..": false,
	} {
		if got := units.InSlices(cgroup); got != want {
			t.Errorf("InSlices(%q) is %t", cgroup, got)
		}
	}
}

func TestMatch(t *testing.T) {
	tests := []struct {
		pattern, unit string
		want          bool
	}{
		{"planner@*.service", "planner@x.service", true},
		{"planner@*.service", `planner@a\x2db.service`, true},
		{"planner@*.service", "planner.service", false},
		{"planner@*.service", "planner@x.scope", false},
		{"planner@*.service", "my-planner@x.service", false},
		{"planner-*.scope", "planner-17.scope", true},
		{"planner.service", "planner.service", true},
		{`my\\x2dplanner.service`, `my\x2dplanner.service`, true},
		{`my\x2dplanner.service`, `my\x2dplanner.service`, false},
		{"planner[", "planner[", false},
		{"", "planner.service", false},
	}
	for _, test := range tests {
		if got := units.Match(test.pattern, test.unit); got != test.want {
			t.Errorf("Match(%q, %q) is %t", test.pattern, test.unit, got)
		}
	}
}

func FuzzParseCgroup(f *testing.F) {
	f.Add("/system.slice/system-planner.slice/planner@x.service", "other.service")
	f.Add("/user.slice/user-1000.slice/user@1000.service/app.slice", "foo.service")
	f.Add("/_cpu.slice//__a.scope/", ".control")
	f.Fuzz(func(t *testing.T, cgroup, inside string) {
		unit, ok := units.ParseCgroup(cgroup)
		if ok != (unit != "") {
			t.Fatalf("%q: %q, %t", cgroup, unit, ok)
		}
		if !ok {
			return
		}
		if units.InSlices(cgroup) {
			t.Fatalf("%q is a unit's and a slice", cgroup)
		}
		if strings.ContainsAny(unit, "/\n\x00 ") || strings.HasSuffix(unit, ".slice") || !strings.Contains(cgroup, unit) {
			t.Fatalf("%q belongs to %q, which is no unit in it", cgroup, unit)
		}
		// Nothing that is made inside of a unit leaves it.
		if deeper, _ := units.ParseCgroup(cgroup + "/" + inside); deeper != unit {
			t.Fatalf("%q inside of %s belongs to %q", inside, unit, deeper)
		}
	})
}
