package policy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	goparser "go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"chaperone.dev/chaperone/docs/schema"
	"chaperone.dev/chaperone/pkg/policy"
)

// The schema is not what documents are read by, so it is held to what reads
// them: it takes all that Load takes, and has the same kinds.

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema.JSON))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("documents.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("documents.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// validate applies the schema to each document of a file's text, as an editor
// does. It returns how many there were.
func validate(t *testing.T, s *jsonschema.Schema, text string) (int, error) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(text))
	var all []error
	for n := 0; ; n++ {
		var doc any
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return n, errors.Join(all...)
		}
		if err != nil {
			t.Fatalf("%v in:\n%s", err, text)
		}
		data, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(value); err != nil {
			all = append(all, err)
		}
	}
}

func TestSchemaTakesExamples(t *testing.T) {
	s := compileSchema(t)
	found, err := filepath.Glob("../../policies/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	documents := 0
	for _, file := range append(found, "testdata/design.yaml") {
		if strings.HasSuffix(file, "_test.yaml") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n, err := validate(t, s, string(text))
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		documents += n
	}
	if documents < 20 {
		t.Errorf("only %d documents were found", documents)
	}
}

// The package's test documents that other tests build on hold, and so do those
// that tests write out whole.
func TestSchemaTakesTestDocuments(t *testing.T) {
	s := compileSchema(t)
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	for _, file := range files {
		f, err := goparser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil || !strings.HasPrefix(text, "apiVersion: ") || !valid(text) {
				return true
			}
			taken++
			if _, err := validate(t, s, text); err != nil {
				t.Errorf("%s: %v in:\n%s", file, err, text)
			}
			return true
		})
	}
	if taken < 6 {
		t.Errorf("only %d documents were found", taken)
	}
}

// valid tells whether a text is wrong in nothing but what other documents
// would say.
func valid(text string) bool {
	_, err := policy.Parse("fixture", []byte(text))
	var all policy.Errors
	if !errors.As(err, &all) {
		return err == nil
	}
	return !slices.ContainsFunc(all, func(e *policy.DocumentError) bool {
		return !strings.Contains(e.Message, "document is named") && !strings.Contains(e.Message, "keys hold none named")
	})
}

// A YAML sample of the documentation is a spec, below the heading of its kind.
func TestSchemaTakesSamples(t *testing.T) {
	s := compileSchema(t)
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	sample := regexp.MustCompile("(?s)^```yaml\n(spec:\n.*?)```")
	seen := map[string]bool{}
	for section := range strings.SplitSeq(string(text), "\n## ") {
		kind, _, _ := strings.Cut(section, "\n")
		for rest := section; ; {
			i := strings.Index(rest, "```yaml\n")
			if i < 0 {
				break
			}
			rest = rest[i:]
			if m := sample.FindStringSubmatch(rest); m != nil {
				seen[kind] = true
				if _, err := validate(t, s, head+"kind: "+kind+"\nmetadata: {name: sample}\n"+m[1]); err != nil {
					t.Errorf("%s: %v in:\n%s", kind, err, m[1])
				}
			}
			rest = rest[len("```yaml\n"):]
		}
	}
	for _, kind := range []string{"IdentityProvider", "Mask", "Policy", "Sink", "Target", "Workload"} {
		if !seen[kind] {
			t.Errorf("docs/configuration.md has no sample of a %s; there are those of %v", kind, slices.Sorted(maps.Keys(seen)))
		}
	}
}

func TestSchemaHasTheKinds(t *testing.T) {
	_, err := policy.Parse("x", []byte(head+"kind: Nothing\n"))
	if err == nil {
		t.Fatal("a document of an unknown kind was taken")
	}
	_, list, _ := strings.Cut(err.Error(), "known are ")
	known := strings.Split(list, ", ")
	var frame struct {
		Properties struct {
			Kind struct {
				Enum []string `json:"enum"`
			} `json:"kind"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(schema.JSON, &frame); err != nil {
		t.Fatal(err)
	}
	slices.Sort(known)
	if got := slices.Sorted(slices.Values(frame.Properties.Kind.Enum)); !slices.Equal(got, known) {
		t.Errorf("the schema has kinds %v, Load has %v", got, known)
	}
}

// What Load refuses for its form, the schema refuses too.
func TestSchemaRefuses(t *testing.T) {
	s := compileSchema(t)
	change := func(text, old, new string) string {
		t.Helper()
		if !strings.Contains(text, old) {
			t.Fatalf("%q is not in:\n%s", old, text)
		}
		return strings.Replace(text, old, new, 1)
	}
	const (
		role    = "{name: read, when: \"statement.readOnly\", then: allow}"
		aSink   = head + "kind: Sink\nspec: {listen: \"127.0.0.1:8443\", url: \"https://c.example\", login: {issuer: corp-idp, clientID: c}}\n"
		anSSH   = head + "kind: Target\nmetadata: {name: s}\nspec: {protocol: ssh, hosts: [\"a.example:22\"], credential: {sshCert: {principals: [deploy]}}}\n"
		aKube   = head + "kind: Target\nmetadata: {name: k}\nspec: {protocol: kubernetes, hosts: [\"a.example:6443\"], credential: {kubeToken: {adminFrom: {file: /k}, serviceAccount: a/b}}}\n"
		anAsker = "{name: ask, when: 'true', then: approve, approval: {from: {groups: [dba]}}}"
	)
	rule := func(text string) string { return change(aPolicy, role, text) }
	for _, text := range []string{aSink, anSSH, aKube, aTarget, aWorkload, aProvider, aPolicy, aMask, aNode, rule(anAsker)} {
		if _, err := validate(t, s, text); err != nil {
			t.Errorf("the schema refuses what the tests below start from: %v in:\n%s", err, text)
		}
		if !valid(text) {
			t.Errorf("Load refuses what the tests below start from:\n%s", text)
		}
	}
	tests := map[string]string{
		"no apiVersion":              change(aNode, head, ""),
		"another apiVersion":         change(aNode, "v1alpha1", "v1"),
		"no kind":                    change(aNode, "kind: Node\n", ""),
		"an unknown kind":            change(aNode, "kind: Node", "kind: Nodes"),
		"no spec":                    change(aNode, "spec: {cluster: north}\n", ""),
		"an empty spec":              change(aNode, "{cluster: north}", ""),
		"a part too many":            aNode + "status: {}\n",
		"no metadata":                change(aProvider, "metadata: {name: corp-idp}\n", ""),
		"no name":                    change(aProvider, "{name: corp-idp}", "{labels: {a: b}}"),
		"a bad name":                 change(aProvider, "name: corp-idp", "name: Corp_IdP"),
		"another kind's spec":        change(aProvider, "IdentityProvider", "Mask"),
		"an unknown field":           change(aTarget, "protocol:", "proto: x\n  protocol:"),
		"an unknown field below":     change(aTarget, "memberOf:", "member:"),
		"an unknown protocol":        change(aTarget, "postgres\n", "mysql\n"),
		"no protocol":                change(aTarget, "  protocol: postgres\n", ""),
		"no hosts":                   change(aTarget, `["orders.db.example:5432", "10.20.0.0/16:5432", "[2001:db8::1]:5432"]`, "[]"),
		"hosts that are no list":     change(aTarget, `["orders.db.example:5432", "10.20.0.0/16:5432", "[2001:db8::1]:5432"]`, `"a.example:1"`),
		"a host without a port":      change(aTarget, "orders.db.example:5432", "orders.db.example"),
		"a host twice":               change(aTarget, "10.20.0.0/16:5432", "orders.db.example:5432"),
		"half-hearted TLS":           change(aTarget, "verify-full", "require"),
		"TLS off and a CA":           change(aTarget, "verify-full", "disable"),
		"a relative file":            change(aTarget, "/etc/chaperone/ca.pem", "ca.pem"),
		"a secret in the document":   change(aTarget, "{file: /etc/chaperone/orders.dsn}", `"postgres://x"`),
		"no source of a secret":      change(aTarget, "{file: /etc/chaperone/orders.dsn}", "{}"),
		"no credential":              change(aTarget, "postgresRole: {adminFrom: {file: /etc/chaperone/orders.dsn}, memberOf: [orders_reader]}", "{}"),
		"a certificate without TLS":  change(change(aTarget, aRole, aCert), "{mode: verify-full, caFile: /etc/chaperone/ca.pem}", "{mode: disable}"),
		"a secret of nobody":         change(aTarget, aRole, "postgresSecret: {passwordFrom: {file: /p}}"),
		"a password in the document": change(aTarget, aRole, "postgresSecret: {user: app, passwordFrom: hunter2}"),
		"a certificate without key":  change(aTarget, aRole, "postgresCert: {user: app, caFile: /ca.pem}"),
		"no duration":                change(aTarget, "memberOf: [orders_reader]", "ttl: 15"),
		"a negative duration":        change(aTarget, "memberOf: [orders_reader]", "ttl: -15m"),
		"connections out of bounds":  change(aTarget, "memberOf: [orders_reader]", "connectionLimit: 0"),
		"another protocol's TLS":     change(anSSH, "credential:", "tls: {mode: verify-full}, credential:"),
		"another's host keys":        change(aKube, "credential:", "hostKeys: {knownHostsFile: /k}, credential:"),
		"another's credential":       change(anSSH, "sshCert: {principals: [deploy]}", "postgresRole: {adminFrom: {file: /k}}"),
		"no SSH principals":          change(anSSH, "{principals: [deploy]}", "{principals: []}"),
		"half a service account":     change(aKube, "serviceAccount: a/b", "serviceAccount: b"),
		"no way to select":           change(aWorkload, `run: {name: "nightly-*"}`, ""),
		"two ways to select":         change(aWorkload, `run: {name: "nightly-*"}`, "run: {name: a}, systemd: {unit: b.service}"),
		"pods of any namespace":      change(aWorkload, `run: {name: "nightly-*"}`, "kubernetes: {labels: {a: b}}"),
		"two kinds of token":         change(aWorkload, "audience: chaperone", "clientCredentials: {clientID: a, clientSecretFrom: {file: /s}}"),
		"an egress of no default":    aWorkload + "  egress: {allow: [\"a.example:1\"]}\n",
		"an unknown default":         aWorkload + "  egress: {default: drop}\n",
		"exceptions of nothing":      aWorkload + "  egress: {default: allow, allow: [\"a.example:1\"]}\n",
		"no audiences":               change(aProvider, "[chaperone]", "[]"),
		"an issuer that is no URL":   change(aProvider, "https://idp.example", "idp.example"),
		"nobody":                     change(aPolicy, "{groups: [planners]}", "{}"),
		"a subject of no issuer":     change(aPolicy, "{groups: [planners]}", "{subjects: [eve]}"),
		"no targets":                 change(aPolicy, "[orders-db]", "[]"),
		"no rules":                   change(aPolicy, "\n    - "+role, " []"),
		"a rule without name":        rule("{when: 'true', then: allow}"),
		"a rule without expression":  rule("{name: r, then: allow}"),
		"a rule without action":      rule("{name: r, when: 'true'}"),
		"an unknown action":          rule("{name: r, when: 'true', then: audit}"),
		"a message nobody is told":   rule("{name: r, when: 'true', then: allow, message: hello}"),
		"nobody is asked":            rule("{name: r, when: 'true', then: approve}"),
		"asked for nothing":          rule("{name: r, when: 'true', then: deny, approval: {from: {groups: [dba]}}}"),
		"an approval from nobody":    rule(change(anAsker, "{groups: [dba]}", "{}")),
		"an unknown mode":            rule(change(anAsker, "{groups: [dba]}", "{groups: [dba]}, mode: wait")),
		"an unknown per":             rule(change(anAsker, "{groups: [dba]}", "{groups: [dba]}, per: job")),
		"eleven people":              rule(change(anAsker, "{groups: [dba]}", "{groups: [dba]}, count: 11")),
		"escalated to nobody":        rule(change(anAsker, "{groups: [dba]}", "{groups: [dba]}, escalate: [{after: 5m}]")),
		"enforced a little":          aPolicy + "  enforce: maybe\n",
		"an unknown record":          aPolicy + "  session: {record: none}\n",
		"negative rows":              aPolicy + "  session: {maxRows: -1}\n",
		"masks nothing":              head + "kind: Mask\nmetadata: {name: m}\nspec: {targets: [a]}\n",
		"an unknown detector":        change(aMask, "jwt", "names"),
		"an unknown transform":       change(aMask, "with: redact", "with: hide"),
		"two transforms":             change(aMask, "{keepLast: 4}", "{keepLast: 4, keepFirst: 1}"),
		"no transform":               change(aMask, "{keepLast: 4}", "{}"),
		"no unit to truncate to":     change(aMask, "{keepLast: 4}", "{truncate: decade}"),
		"an empty fixed text":        change(aMask, "{keepLast: 4}", "{fixed: ''}"),
		"a key of no name":           change(aMask, "{keepLast: 4}", "{formatPreserving: A/B}"),
		"keeps nothing":              change(aMask, "{keepLast: 4}", "{keepLast: 0}"),
		"a pattern of two parts":     change(aMask, "*.*.birth", "*.birth"),
		"an unknown untraceable":     aMask + "  untraceable: allow\n",
		"untraceable by nobody":      aMask + "  untraceable: approve\n",
		"an unknown belt":            change(aNode, "cluster: north", "belt: braces"),
		"exempt from nothing":        change(aNode, "cluster: north", "exempt: [a]"),
		"a port out of bounds":       change(aNode, "cluster: north", "listenPort: 70000"),
		"no size":                    change(aNode, "cluster: north", "journal: {maxBytes: 1GB}"),
		"NATS without a URL":         change(aNode, "cluster: north", "nats: {caFile: /ca}"),
		"NATS with a password":       change(aNode, "cluster: north", `nats: {url: "tls://a:b@c.example:4222"}`),
		"two NATS credentials":       change(aNode, "cluster: north", `nats: {url: "tls://c.example:4222", credsFile: /a, nkeyFile: /b}`),
		"no public key":              change(aNode, "cluster: north", "authority: {keys: [abc]}"),
		"a sink that nobody reaches": change(aSink, `listen: "127.0.0.1:8443", `, ""),
		"a sink without login":       change(aSink, ", login: {issuer: corp-idp, clientID: c}", ""),
		"a URL with a path":          change(aSink, "https://c.example", "https://c.example/x"),
		"half a certificate":         change(aSink, "login:", "tls: {certFile: /c}, login:"),
		"an unknown format":          change(aSink, "login:", "webhooks: [{name: a, urlFrom: {file: /u}, format: xml}], login:"),
		"buttons for nobody":         change(aSink, "login:", "slack: {signingSecretFrom: {file: /s}, people: []}, login:"),
	}
	for name, text := range tests {
		if _, err := validate(t, s, text); err == nil {
			t.Errorf("%s: the schema takes it:\n%s", name, text)
		}
		if valid(text) {
			t.Errorf("%s: Load takes it:\n%s", name, text)
		}
	}
}
