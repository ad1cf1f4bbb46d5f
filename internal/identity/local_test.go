package identity

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"chaperone.dev/chaperone/pkg/policy"
)

func TestLocalIsWhatTheSystemSays(t *testing.T) {
	got, err := Local(uint32(os.Getuid()))
	if err != nil {
		t.Fatal(err)
	}
	name, err := exec.CommandContext(t.Context(), "id", "-un").Output()
	if err != nil {
		t.Fatal(err)
	}
	groups, err := exec.CommandContext(t.Context(), "id", "-Gn", strings.TrimSpace(string(name))).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(string(groups))
	slices.Sort(want)
	if got.Subject != strings.TrimSpace(string(name)) || got.Issuer != policy.LocalIssuer || !slices.Equal(got.Groups, want) || !got.Expires.IsZero() {
		t.Errorf("got %+v, id says %s %v", got, name, want)
	}
	if _, err := Local(4_000_000_000); err == nil {
		t.Error("a user that doesn't exist has a principal")
	}
}
