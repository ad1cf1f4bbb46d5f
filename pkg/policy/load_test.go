package policy_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"chaperone.dev/chaperone/pkg/policy"
	"github.com/google/go-cmp/cmp"
)

func TestLoadFillsInDefaults(t *testing.T) {
	set := mustParse(t, aTarget, aWorkload, aProvider, aPolicy, aMask, aNode)
	role := set.Target("orders-db").Spec.Credential.PostgresRole
	if role.TTL != policy.Duration(15*time.Minute) || role.ConnectionLimit != 20 {
		t.Errorf("postgresRole has ttl %s and connectionLimit %d", role.TTL, role.ConnectionLimit)
	}
	if got := set.IdentityProvider("corp-idp").Spec.Claims.Groups; got != "groups" {
		t.Errorf("the groups claim is %q", got)
	}
	if got := set.Masks[0].Spec.Untraceable; got != "deny" {
		t.Errorf("untraceable is %q", got)
	}
	wantNode := policy.NodeSpec{
		Cluster: "north", Cgroup: "chaperone", Belt: policy.BeltPlanners, PinDir: "/sys/fs/bpf/chaperone", ListenPort: 15001, RunDir: "/run/chaperone",
		Limits:  policy.LimitsSpec{Sessions: 1000, SessionsPerJob: 100, ConnectTimeout: policy.Duration(10 * time.Second)},
		Journal: policy.JournalSpec{MaxBytes: 1 << 30},
	}
	if diff := cmp.Diff(wantNode, set.Node.Spec); diff != "" {
		t.Errorf("Node (-want +got):\n%s", diff)
	}
	wantColumns := []policy.ColumnMask{
		{Match: "public.customers.card_number", With: policy.Transform{KeepLast: 4}},
		{Match: "*.*.password*", With: policy.Transform{Redact: true}},
		{Match: "*.*.birth", With: policy.Transform{Null: true}},
	}
	if diff := cmp.Diff(wantColumns, set.Masks[0].Spec.Columns); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	withoutNode := mustParse(t, aTarget)
	wantNode.Cluster = "default"
	if diff := cmp.Diff(wantNode, withoutNode.Node.Spec); diff != "" {
		t.Errorf("Node without a document (-want +got):\n%s", diff)
	}
}

// The example of the design, less what this release refuses.
func TestLoadFolder(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("b.yml", aTarget)
	write("orders_test.yaml", "cases: not documents")
	write("README.md", "neither: is this")
	write(".hidden.yaml", "nor: this")
	write("comments.yaml", "# nothing\n---\n# here\n")
	if err := os.MkdirAll(filepath.Join(dir, "more.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	// As the files of a mounted ConfigMap: links into a hidden folder.
	if err := os.Mkdir(filepath.Join(dir, "..data"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("..data/policy.yaml", aPolicy)
	if err := os.Symlink("..data/policy.yaml", filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	set, err := policy.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"Target": 1, "Policy": 1, "Workload": 0, "IdentityProvider": 0, "Mask": 0}
	if diff := cmp.Diff(want, set.Counts()); diff != "" {
		t.Errorf("documents (-want +got):\n%s", diff)
	}

	// What can't be read is told with its path, and doesn't hang.
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "gone.yaml")); err != nil {
		t.Fatal(err)
	}
	write("large.yaml", strings.Repeat("#", 1<<20)+"\n")
	_, err = policy.Load(dir)
	wantErrors := []string{
		dir + "/gone.yaml: can't be read: no such file or directory",
		dir + "/large.yaml: the file is larger than 1048576 bytes; split it",
		dir + "/pipe.yaml: can't be read: it is no regular file",
	}
	if diff := cmp.Diff(wantErrors, policy.Messages(err)); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the cause is lost in %v", err)
	}
}

func TestLoadNothing(t *testing.T) {
	dir := t.TempDir()
	if _, err := policy.Load(dir); !errors.Is(err, policy.ErrNoDocuments) || !strings.Contains(err.Error(), dir) {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := policy.Load(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder: %v", err)
	}
	if _, err := policy.Parse("empty.yaml", []byte("# nothing\n---\n")); !errors.Is(err, policy.ErrNoDocuments) {
		t.Errorf("an empty file: %v", err)
	}
}

func TestRevisionFollowsContentOnly(t *testing.T) {
	revision := func(documents ...string) string { return mustParse(t, documents...).Revision }
	first := revision(aTarget, aPolicy)
	if len(first) != 16 {
		t.Errorf("revision is %q", first)
	}
	if other := revision("# a comment\n"+aPolicy, aTarget); other != first {
		t.Errorf("order and comments changed the revision from %s to %s", first, other)
	}
	if other := revision(aTarget, strings.Replace(aPolicy, "statement.readOnly", "statement.ddl", 1)); other == first {
		t.Error("a changed rule left the revision the same")
	}
}

func TestJSONRoundTrip(t *testing.T) {
	set := mustParse(t, aTarget, aMask, aNode)
	data, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	var back policy.Set
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(set.Masks, back.Masks); diff != "" {
		t.Errorf("masks (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(set.Targets, back.Targets); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(set.Node, back.Node); diff != "" {
		t.Errorf("node (-want +got):\n%s", diff)
	}
	var short policy.Transform
	if err := json.Unmarshal([]byte(`"redact"`), &short); err != nil || !short.Redact {
		t.Errorf("the short spelling gave %+v, %v", short, err)
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "17": 17, "17B": 17, "4KiB": 4096, "512MiB": 512 << 20, "3GiB": 3 << 30, "1TiB": 1 << 40} {
		var s policy.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || int64(s) != want {
			t.Errorf("%s is %d, %v", text, s, err)
		}
		var again policy.Size
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%s is written %s, which reads as %d, %v", text, s, again, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5GiB", "1GB", "9999999999TiB", "1 GiB"} {
		if err := new(policy.Size).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestWorkloadForRun(t *testing.T) {
	set := mustParse(t, aProvider, aWorkload, strings.NewReplacer("name: nightly}", "name: all-eu}", "nightly-*", "*-eu").Replace(aWorkload))
	if w, err := set.WorkloadForRun("nightly-7"); err != nil || w.Metadata.Name != "nightly" {
		t.Errorf("nightly-7: %v, %v", w, err)
	}
	if _, err := set.WorkloadForRun("nightly-eu"); !errors.Is(err, policy.ErrAmbiguousWorkload) {
		t.Errorf("nightly-eu: %v", err)
	}
	if _, err := set.WorkloadForRun("daily"); !errors.Is(err, policy.ErrNoWorkload) {
		t.Errorf("daily: %v", err)
	}
}
