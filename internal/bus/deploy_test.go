package bus

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/conf"
	"github.com/nats-io/nats-server/v2/server"
)

// The configuration for servers of one's own gives each role what it has on the
// embedded one.
func TestDeployedPermissions(t *testing.T) {
	text, err := os.ReadFile("../../deploy/nats/nats-server.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"NATS_LISTEN", "NATS_CERT", "NATS_KEY", "NATS_STORE"} {
		t.Setenv(name, "x")
	}
	roles := []Role{RoleAdmin, RoleNode, RoleSink, RoleAuditor}
	for _, r := range roles {
		t.Setenv(strings.ToUpper(string(r))+"_NKEY", string(r))
	}
	filled := strings.NewReplacer("CLUSTER.NODE", "c1.n1", "recording.CLUSTER", "recording.c1").Replace(string(text))
	parsed, err := conf.Parse(filled)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, u := range parsed["authorization"].(map[string]any)["users"].([]any) {
		user := u.(map[string]any)
		role := Role(user["nkey"].(string))
		if !slices.Contains(roles, role) {
			t.Errorf("a user %q", role)
			continue
		}
		found++
		want := permissions(role, "c1", "n1")
		given := user["permissions"].(map[string]any)
		for what, want := range map[string]*server.SubjectPermission{"publish": want.Publish, "subscribe": want.Subscribe} {
			var allow, deny []string
			switch p := given[what].(type) {
			case []any:
				allow = texts(p)
			case map[string]any:
				deny = texts(p["deny"].([]any))
			}
			if diff := cmp.Diff(set(want.Allow), set(allow)); diff != "" {
				t.Errorf("%s, %s (-embedded +deployed):\n%s", role, what, diff)
			}
			if diff := cmp.Diff(set(want.Deny), set(deny)); diff != "" {
				t.Errorf("%s, %s denied (-embedded +deployed):\n%s", role, what, diff)
			}
		}
	}
	if found != len(roles) {
		t.Errorf("%d users, want one for each of %v", found, roles)
	}
}

func texts(values []any) (all []string) {
	for _, v := range values {
		all = append(all, v.(string))
	}
	return all
}

func set(list []string) []string {
	list = slices.Sorted(slices.Values(list))
	return slices.Compact(list)
}
