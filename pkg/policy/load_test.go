package policy_test

import (
	"encoding/json"
	"errors"
	"fmt"
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

func TestLoadReadsEachCredentialOfPostgres(t *testing.T) {
	cert := mustParse(t, strings.Replace(aTarget, aRole, aCert, 1)).Targets[0].Spec.Credential.PostgresCert
	want := &policy.PostgresCertSpec{
		User: "app", CommonName: "app@jobs", CAFile: "/etc/chaperone/ca.pem", KeyFile: "/etc/chaperone/ca.key",
		TTL: policy.Duration(2 * time.Minute), AdminFrom: &policy.SecretSource{File: "/a"},
	}
	if diff := cmp.Diff(want, cert); diff != "" {
		t.Errorf("postgresCert (-want +got):\n%s", diff)
	}
	plain := strings.NewReplacer(", commonName: app@jobs", "", ", ttl: 2m", "", ", adminFrom: {file: /a}", "").Replace(aCert)
	cert = mustParse(t, strings.Replace(aTarget, aRole, plain, 1)).Targets[0].Spec.Credential.PostgresCert
	if cert.CommonName != "app" || cert.TTL != policy.Duration(5*time.Minute) || cert.AdminFrom != nil {
		t.Errorf("postgresCert has the defaults %+v", cert)
	}
	stored := mustParse(t, strings.Replace(aTarget, aRole, aSecret, 1)).Targets[0].Spec.Credential.PostgresSecret
	if stored.User != "app" || stored.PasswordFrom.File != "/etc/chaperone/app.password" || stored.AdminFrom != nil {
		t.Errorf("postgresSecret is %+v", stored)
	}
	role := mustParse(t, strings.Replace(aTarget, "memberOf: [orders_reader]", "owner: shop", 1)).Targets[0].Spec.Credential.PostgresRole
	if role.Owner != "shop" {
		t.Errorf("postgresRole has owner %q", role.Owner)
	}
}

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
		Limits:  policy.LimitsSpec{Sessions: 1000, SessionsPerJob: 100, ConnectTimeout: policy.Duration(10 * time.Second), Approvals: 200, ApprovalsPerJob: 10},
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

func TestSinkDefaults(t *testing.T) {
	set := mustParse(t, aSink, aProvider)
	from := func(file string) policy.SecretSource { return policy.SecretSource{File: file} }
	want := policy.SinkSpec{
		Listen: "0.0.0.0:8443", URL: "https://chaperone.example",
		TLS:    &policy.ServerTLSSpec{CertFile: "/etc/chaperone/tls.crt", KeyFile: "/etc/chaperone/tls.key"},
		Login:  policy.LoginSpec{Issuer: "corp-idp", ClientID: "chaperone", CLIClientID: "chaperone", Scopes: []string{"groups"}, SessionLife: policy.Duration(8 * time.Hour)},
		Admins: policy.PrincipalSelect{Groups: []string{"platform"}},
		Webhooks: []policy.WebhookSpec{
			{Name: "chat", URLFrom: from("/etc/chaperone/secrets/chat.url"), Format: policy.WebhookSlack},
			{Name: "audit", URLFrom: from("/etc/chaperone/secrets/audit.url"), Format: policy.WebhookJSON},
		},
		Slack: &policy.SlackSpec{
			SigningSecretFrom: from("/etc/chaperone/secrets/slack"),
			People:            []policy.SlackPerson{{ID: "U012AB3CD", Subject: "alice", Issuer: "corp-idp"}},
		},
	}
	if diff := cmp.Diff(want, set.Sink.Spec); diff != "" {
		t.Errorf("Sink (-want +got):\n%s", diff)
	}
	if got := set.IdentityProvider("corp-idp").Spec.Claims.Subject; got != "sub" {
		t.Errorf("the subject's claim is %q", got)
	}
	if set := mustParse(t, aNode); set.Sink != nil {
		t.Errorf("a sink without a document: %+v", set.Sink)
	}
	loopback := `apiVersion: chaperone.dev/v1alpha1
kind: Sink
metadata: {name: lab}
spec: {listen: "127.0.0.1:8080", url: "http://localhost:8080/", login: {issuer: corp-idp, clientID: page, cliClientID: cli}}
`
	if got := mustParse(t, loopback, aProvider).Sink.Spec; got.URL != "http://localhost:8080" || got.Login.CLIClientID != "cli" {
		t.Errorf("a sink on loopback is %+v", got)
	}
}

func TestKeysAndCredentialsOfNode(t *testing.T) {
	set := mustParse(t, aTarget, aProvider, aNode[:len(aNode)-len("{cluster: north}\n")]+`
  authority: {keys: ["AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]}
  documents: {published: true}
  keys: {email-key: {file: /etc/chaperone/secrets/email.key}}
`, strings.Replace(aMask, "with: redact", "with: {hmac: email-key}", 1),
		strings.Replace(aWorkload, "tokenFile: /run/token", "clientCredentials: {clientID: nightly, clientSecretFrom: {file: /etc/chaperone/secrets/nightly}, scopes: [planner]}", 1))
	if set.Masks[0].Spec.Columns[1].With.HMAC != "email-key" || !set.Node.Spec.Documents.Published {
		t.Errorf("loaded as %+v, %+v", set.Masks[0], set.Node)
	}
	if c := set.Workloads[0].Spec.Identity.ClientCredentials; c == nil || c.ClientID != "nightly" {
		t.Errorf("client credentials are %+v", c)
	}
}

// The documents that the language was designed by.
func TestLoadDesign(t *testing.T) {
	data, err := os.ReadFile("testdata/design.yaml")
	if err != nil {
		t.Fatal(err)
	}
	set := mustParse(t, string(data))
	who := policy.Principal{Subject: "x", Issuer: "corp-idp", Groups: []string{"planners"}}
	bound := set.Bind(who, policy.WorkloadFacts{}, policy.TargetFacts{Name: "orders-db"})
	for kind, want := range map[string]policy.Action{"SELECT": policy.Allow, "DELETE": policy.Approve, "DROP TABLE": policy.Deny} {
		st := &policy.Statement{Kind: kind, ReadOnly: kind == "SELECT", DDL: kind == "DROP TABLE"}
		if d := bound.Statement(noon, policy.SessionFacts{}, st); d.Action != want {
			t.Errorf("%s is decided as %+v", kind, d)
		}
	}
}

func TestLoadFiles(t *testing.T) {
	dir := writeFolder(t, map[string]string{"a.yaml": aTarget, "a_test.yaml": "cases: [", "b.yml": aNode, "c.txt": "x"})
	files, err := policy.ReadFolder(dir)
	if err != nil || len(files) != 2 {
		t.Fatalf("read %d files, %v", len(files), err)
	}
	files["published/orders.yaml"] = []byte(aPolicy)
	files["published/orders_test.yaml"] = []byte("cases: [")
	set, err := policy.LoadFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	if whole := mustParse(t, aTarget, aNode, aPolicy); set.Revision != whole.Revision {
		t.Errorf("revision %s, and %s of one file", set.Revision, whole.Revision)
	}
	files["published/again.yaml"] = []byte(aTarget)
	want := []string{"published/again.yaml:3: metadata.name: another Target is named \"orders-db\": " + dir + "/a.yaml:3"}
	if _, err := policy.LoadFiles(files); !cmp.Equal(want, policy.Messages(err)) {
		t.Errorf("errors (-want +got):\n%s", cmp.Diff(want, policy.Messages(err)))
	}
	if _, err := policy.LoadFiles(nil); !errors.Is(err, policy.ErrNoDocuments) {
		t.Errorf("no files: %v", err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "gone.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.ReadFolder(dir); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), dir+"/gone.yaml: ") {
		t.Errorf("a file that can't be read: %v", err)
	}
}

func TestKindsOf(t *testing.T) {
	kinds, err := policy.KindsOf("x.yaml", []byte(stream(aTarget, "# nothing\n", aSink, "kind: Future\n")))
	if diff := cmp.Diff([]string{"Target", "Sink", "Future"}, kinds); diff != "" || err != nil {
		t.Errorf("%v, kinds (-want +got):\n%s", err, diff)
	}
	for text, want := range map[string]string{
		aTarget + "---\na: b\n": "x.yaml:11: kind: is missing", "- a": "x.yaml:1: kind: is missing",
		"a: [": "x.yaml:1: is no valid YAML: did not find expected node content",
	} {
		if kinds, err := policy.KindsOf("x.yaml", []byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q has kinds %q, %v", text, kinds, err)
		}
	}
}

func TestThousandsOfDocuments(t *testing.T) {
	documents := []string{aTarget}
	for i := range 4999 {
		documents = append(documents, rules(fmt.Sprintf("p%d", i), "r: allow: statement.readOnly"))
	}
	files := map[string][]byte{}
	for i := 0; i < len(documents); i += 1000 {
		files[fmt.Sprintf("%d.yaml", i)] = []byte(stream(documents[i:min(i+1000, len(documents))]...))
	}
	set, err := policy.LoadFiles(files)
	if err != nil || len(set.Policies) != 4999 {
		t.Fatalf("loaded %v, %v", set, err)
	}
	files["more.yaml"] = []byte(aNode)
	if _, err := policy.LoadFiles(files); err == nil || err.Error() != "more.yaml:1: there are more than 5000 documents" {
		t.Errorf("one more: %v", err)
	}
}
