package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"chaperone.dev/chaperone/pkg/policy"
	"github.com/google/go-cmp/cmp"
)

const head = "apiVersion: chaperone.dev/v1alpha1\n"

// Each document is refused with exactly these errors.
func TestRefusedDocuments(t *testing.T) {
	target := func(old, new string) string { return strings.Replace(aTarget, old, new, 1) }
	rule := func(text string) string {
		return strings.Replace(aPolicy, `{name: read, when: "statement.readOnly", then: allow}`, text, 1) + "---\n" + aTarget
	}
	when := func(expr string) string { return rule(fmt.Sprintf("{name: r, then: allow, when: %q}", expr)) }
	inPolicy := func(old, new string) string { return strings.Replace(aPolicy, old, new, 1) + "---\n" + aTarget }
	inMask := func(old, new string) string { return strings.Replace(aMask, old, new, 1) + "---\n" + aTarget }
	inWorkload := func(old, new string) string {
		return strings.Replace(aWorkload, old, new, 1) + "---\n" + aProvider
	}
	inProvider := func(old, new string) string { return strings.Replace(aProvider, old, new, 1) }
	inSSH := func(old, new string) string { return strings.Replace(anSSHTarget, old, new, 1) }
	inKube := func(old, new string) string { return strings.Replace(aKubeTarget, old, new, 1) }
	inSink := func(old, new string) string { return strings.Replace(aSink, old, new, 1) + "---\n" + aProvider }
	node := func(spec string) string { return head + "kind: Node\nspec: " + spec + "\n" }

	tests := []struct {
		name string
		text string
		want []string
	}{
		// YAML and the document's frame.
		{"no YAML", "a: [b", []string{
			"bad.yaml:1: is no valid YAML: did not find expected ',' or ']'",
		}},
		{"a tab", head + "kind: Node\nspec:\n\tcluster: x\n", []string{
			"bad.yaml:4: is no valid YAML: found character that cannot start any token",
		}},
		{"a list", "- a\n", []string{
			"bad.yaml:1: must be an object with apiVersion, kind, metadata and spec",
		}},
		{"an alias", node("&a {cluster: x}") + "metadata: *a\n", []string{
			"bad.yaml:4: metadata: YAML aliases are not supported; write the value out",
		}},
		{"a merge key", node("{<<: {cluster: x}}"), []string{
			"bad.yaml:3: spec: every key must be a string, without anchors or merges",
		}},
		{"a duplicate key", node("{cluster: x, cluster: y}"), []string{
			"bad.yaml:3: spec.cluster: appears twice; it is on line 3 already",
		}},
		{"a tag", node("{cluster: !secret x}"), []string{
			"bad.yaml:3: spec.cluster: must be a string, but is a value with a tag of its own; put it in quotes",
		}},
		{"control characters", node(`{cluster: "x\e[2J"}`), []string{
			"bad.yaml:3: spec.cluster: must not hold control characters",
		}},
		{"an unknown part", aNode + "status: {}\n", []string{
			"bad.yaml:4: status: unknown field; known here are apiVersion, kind, metadata, spec",
		}},
		{"no apiVersion", "kind: Node\nspec: {}\n", []string{
			"bad.yaml:1: apiVersion: is missing",
		}},
		{"another apiVersion", "apiVersion: v1\nkind: ConfigMap\n", []string{
			`bad.yaml:1: apiVersion: is "v1"; this release reads chaperone.dev/v1alpha1`,
		}},
		{"no kind", head + "spec: {}\n", []string{
			"bad.yaml:1: kind: is missing",
		}},
		{"an unknown kind", head + "kind: Targets\n", []string{
			`bad.yaml:2: kind: unknown kind "Targets"; known are Target, Workload, IdentityProvider, Policy, Mask, Node, Sink`,
		}},
		{"no metadata, no spec", head + "kind: Target\n", []string{
			"bad.yaml:1: metadata: is missing",
			"bad.yaml:1: spec: is missing",
		}},
		{"an empty spec", head + "kind: Target\nmetadata: {name: x}\nspec:\n", []string{
			"bad.yaml:4: spec: is empty; give it a value or remove it",
		}},
		{"a bad name", target("name: orders-db", "name: Orders_DB"), []string{
			`bad.yaml:3: metadata.name: "Orders_DB" is no valid name: lower-case letters, digits, "-" and ".", at most 63, a letter or digit at both ends`,
		}},
		{"a duplicate name", aTarget + "---\n" + strings.Replace(aTarget, "hosts: [", `hosts: ["b.example:1"] #`, 1), []string{
			`bad.yaml:13: metadata.name: another Target is named "orders-db": bad.yaml:3`,
		}},
		{"two nodes", aNode + "---\n" + aNode, []string{
			"bad.yaml:5: metadata.name: another Node document exists: bad.yaml:1",
		}},

		// Target.
		{"an unknown field", target("protocol: postgres", "protocol: postgres\n  proto: x"), []string{
			"bad.yaml:6: spec.proto: unknown field; known here are credential, hostKeys, hosts, protocol, tls",
		}},
		{"a wrong type", target(`["orders.db.example:5432", "10.20.0.0/16:5432", "[2001:db8::1]:5432"]`, `"orders.db.example:5432"`), []string{
			"bad.yaml:6: spec.hosts: must be a list, but is a string",
		}},
		{"a secret in the wrong place", target("{file: /etc/chaperone/orders.dsn}", `"postgres://admin:hunter2@db/x"`), []string{
			"bad.yaml:9: spec.credential.postgresRole.adminFrom: must be an object, but is a string",
		}},
		{"a secret as a path", target("/etc/chaperone/orders.dsn", `"postgres://admin:hunter2@db/x"`), []string{
			`bad.yaml:9: spec.credential.postgresRole.adminFrom.file: must be an absolute path without "." and ".." parts`,
		}},
		{"no credential", target("postgresRole: {adminFrom: {file: /etc/chaperone/orders.dsn}, memberOf: [orders_reader]}", "{}"), []string{
			"bad.yaml:8: spec.credential: needs one of postgresRole, postgresCert, postgresSecret",
		}},
		{"another credential", target("postgresRole: {adminFrom: {file: /etc/chaperone/orders.dsn}, memberOf: [orders_reader]}", "static: {file: /x}"), []string{
			"bad.yaml:9: spec.credential.static: static is not supported by this release; use postgresSecret",
		}},
		{"no source of the secret", target("{file: /etc/chaperone/orders.dsn}", "{}"), []string{
			"bad.yaml:9: spec.credential.postgresRole.adminFrom: needs file",
		}},
		{"bad bounds of the role", target("memberOf: [orders_reader]", "memberOf: [a, a, ''], ttl: 30s, connectionLimit: 0"), []string{
			`bad.yaml:9: spec.credential.postgresRole.memberOf[1]: "a" is listed twice`,
			"bad.yaml:9: spec.credential.postgresRole.memberOf[2]: is empty",
			"bad.yaml:9: spec.credential.postgresRole.ttl: must be from 1m to 24h",
			"bad.yaml:9: spec.credential.postgresRole.connectionLimit: must be from 1 to 10000",
		}},
		{"a predefined role as owner", target("memberOf: [orders_reader]", "owner: pg_monitor"), []string{
			`bad.yaml:9: spec.credential.postgresRole.owner: "pg_monitor" is a predefined role, which must not own anything`,
		}},
		{"two credentials", target(aRole, aRole+"\n    "+aSecret), []string{
			"bad.yaml:8: spec.credential: has postgresRole and postgresSecret, but only one of them may be set",
		}},
		{"a stored secret of nobody", target(aRole, "postgresSecret: {passwordFrom: {file: p}, adminFrom: {}}"), []string{
			"bad.yaml:9: spec.credential.postgresSecret.user: is missing; it is the role that sessions are of",
			`bad.yaml:9: spec.credential.postgresSecret.passwordFrom.file: must be an absolute path without "." and ".." parts`,
			"bad.yaml:9: spec.credential.postgresSecret.adminFrom: needs file",
		}},
		{"half a certificate", target(aRole, "postgresCert: {user: ' ', caFile: /ca.pem, ttl: 25h, commonName: ''}"), []string{
			"bad.yaml:9: spec.credential.postgresCert.user: is empty",
			"bad.yaml:9: spec.credential.postgresCert.commonName: must have 1 to 64 bytes",
			"bad.yaml:9: spec.credential.postgresCert.keyFile: is missing",
			"bad.yaml:9: spec.credential.postgresCert.ttl: must be from 1m to 24h",
		}},
		{"a certificate without TLS", strings.Replace(target(aRole, "postgresCert: {user: app, caFile: /ca.pem, keyFile: /ca.key}"),
			"{mode: verify-full, caFile: /etc/chaperone/ca.pem}", "{mode: disable}", 1), []string{
			"bad.yaml:9: spec.credential.postgresCert: needs TLS, in which the certificate is shown; spec.tls.mode is disable",
		}},
		{"no duration", target("memberOf: [orders_reader]", "ttl: 15"), []string{
			`bad.yaml:9: spec.credential.postgresRole.ttl: must be a duration such as "90s", "15m" or "1h30m"`,
		}},
		{"the settings of another protocol", target("protocol: postgres", "protocol: ssh"), []string{
			"bad.yaml:7: spec.tls: has no place at an ssh target, whose server is known by hostKeys",
			"bad.yaml:9: spec.credential.postgresRole: is a credential of postgres targets; those of ssh have sshCert",
		}},
		{"host keys of a database", aTarget + "  hostKeys: {knownHostsFile: /etc/ssh/ssh_known_hosts}\n", []string{
			"bad.yaml:10: spec.hostKeys: is for ssh targets; this one's server is known by tls",
		}},
		{"an SSH target without bounds", inSSH("{principals: [planner]}", "{ttl: 48h, sourceAddress: [\"10.0.0.1/8\", here], forceCommand: ''}"), []string{
			"bad.yaml:8: spec.credential.sshCert.principals: needs at least one name, or the certificate would be good for any account",
			"bad.yaml:8: spec.credential.sshCert.ttl: must be from 1m to 24h",
			"bad.yaml:8: spec.credential.sshCert.forceCommand: is empty",
			`bad.yaml:8: spec.credential.sshCert.sourceAddress[0]: "10.0.0.1/8": the CIDR has bits set beyond its length; did you mean 10.0.0.0/8`,
			`bad.yaml:8: spec.credential.sshCert.sourceAddress[1]: "here" is neither an address nor a CIDR`,
		}},
		{"two principals in one", inSSH("[planner]", "['a,b']"), []string{
			`bad.yaml:8: spec.credential.sshCert.principals[0]: "a,b" holds a comma or white space; list one name an item`,
		}},
		{"a relative file of host keys", inSSH("/etc/chaperone/known_hosts", "known_hosts"), []string{
			`bad.yaml:7: spec.hostKeys.knownHostsFile: must be an absolute path without "." and ".." parts`,
		}},
		{"a cluster in the clear", inKube("{caFile: /etc/chaperone/kube-ca.pem}", "{mode: disable}"), []string{
			"bad.yaml:7: spec.tls.mode: disable is not for kubernetes, whose tokens would be sent in the clear; use verify-full",
		}},
		{"a service account without namespace", inKube("agents/planner", "planner"), []string{
			`bad.yaml:8: spec.credential.kubeToken.serviceAccount: "planner" is no "namespace/name"`,
		}},
		{"a token shorter than there are", inKube("agents/planner", "agents/planner, ttl: 5m"), []string{
			"bad.yaml:8: spec.credential.kubeToken.ttl: must be from 10m to 24h",
		}},
		{"an unknown protocol", target("protocol: postgres", "protocol: mysql"), []string{
			`bad.yaml:5: spec.protocol: unknown protocol "mysql"; known are postgres, ssh, kubernetes`,
		}},
		{"bad hosts", target(`"10.20.0.0/16:5432", "[2001:db8::1]:5432"`,
			`"orders.db.example", "a:0", "a:99999", "10.20.1.0/16:1", "::1:5432", "*.example:1", "10.0.0.300:1", "[::ffff:10.0.0.1]:1", "ä.example:1", "[a]:1", 5432`), []string{
			"bad.yaml:6: spec.hosts[11]: must be a string, but is a number; put it in quotes",
			`bad.yaml:6: spec.hosts[1]: "orders.db.example" has no port; write it as name:port`,
			`bad.yaml:6: spec.hosts[2]: "a:0" has no valid port; it must be from 1 to 65535`,
			`bad.yaml:6: spec.hosts[3]: "a:99999" has no valid port; it must be from 1 to 65535`,
			`bad.yaml:6: spec.hosts[4]: "10.20.1.0/16:1": the CIDR has bits set beyond its length; did you mean 10.20.0.0/16`,
			`bad.yaml:6: spec.hosts[5]: "::1:5432": an IPv6 address, and nothing else, is put in brackets`,
			`bad.yaml:6: spec.hosts[6]: "*.example:1": a host name has no wildcard; list the names, or use a CIDR`,
			`bad.yaml:6: spec.hosts[7]: "10.0.0.300:1": neither a valid address nor a host name`,
			`bad.yaml:6: spec.hosts[8]: "[::ffff:10.0.0.1]:1": write the IPv4-mapped address as 10.0.0.1`,
			`bad.yaml:6: spec.hosts[9]: "ä.example:1": no valid host name (international names are written in their xn-- form)`,
			`bad.yaml:6: spec.hosts[10]: "[a]:1": what stands in brackets is no IPv6 address`,
		}},
		{"no hosts", target(`["orders.db.example:5432", "10.20.0.0/16:5432", "[2001:db8::1]:5432"]`, "[]"), []string{
			"bad.yaml:6: spec.hosts: needs at least one host such as orders.db.example:5432",
		}},
		{"one host of two targets", aTarget + "---\n" + target("name: orders-db", "name: other-db"), []string{
			`bad.yaml:16: spec.hosts[0]: "orders.db.example:5432" belongs to Target "orders-db" already`,
			`bad.yaml:16: spec.hosts[1]: "10.20.0.0/16:5432" belongs to Target "orders-db" already`,
			`bad.yaml:16: spec.hosts[2]: "[2001:db8::1]:5432" belongs to Target "orders-db" already`,
		}},
		{"TLS that verifies nothing", target("mode: verify-full", "mode: require"), []string{
			`bad.yaml:7: spec.tls.mode: "require" is not accepted; use verify-full, or disable where the network itself is trusted`,
		}},
		{"TLS disabled and not", target("mode: verify-full", "mode: disable"), []string{
			"bad.yaml:7: spec.tls.mode: is disable, so caFile and serverName would have no effect; remove them, or use verify-full",
		}},
		{"a relative file", target("/etc/chaperone/ca.pem", "ca.pem"), []string{
			`bad.yaml:7: spec.tls.caFile: must be an absolute path without "." and ".." parts`,
		}},

		// Workload and IdentityProvider.
		{"no select", inWorkload("run: {name: \"nightly-*\"}", ""), []string{
			"bad.yaml:5: spec.select: needs one of run, systemd, kubernetes",
		}},
		{"select pods by labels alone", inWorkload("run: {name: \"nightly-*\"}", "kubernetes: {labels: {app: planner}}"), []string{
			`bad.yaml:5: spec.select.kubernetes.namespace: is missing; it is a pattern such as "planners"`,
		}},
		{"a unit without a type", inWorkload("run: {name: \"nightly-*\"}", "systemd: {unit: planner}"), []string{
			`bad.yaml:5: spec.select.systemd.unit: "planner" has no type; write it as "planner.service"`,
		}},
		{"select twice", inWorkload("run: {name: \"nightly-*\"}", "run: {name: a}, systemd: {unit: b}"), []string{
			"bad.yaml:5: spec.select: has run and systemd, but only one of them may be set",
		}},
		{"a bad pattern", inWorkload("nightly-*", "nightly-["), []string{
			`bad.yaml:5: spec.select.run.name: "nightly-[" is no valid pattern`,
		}},
		{"egress without a default", aWorkload + "  egress: {allow: [\"api.example:443\"]}\n---\n" + aProvider, []string{
			"bad.yaml:7: spec.egress.default: is missing; it is allow or deny",
		}},
		{"egress of another default", aWorkload + "  egress: {default: drop}\n---\n" + aProvider, []string{
			`bad.yaml:7: spec.egress.default: "drop" is neither allow nor deny`,
		}},
		{"egress that lists for nothing", aWorkload + "  egress: {default: allow, allow: [\"api.example:443\"]}\n---\n" + aProvider, []string{
			"bad.yaml:7: spec.egress.allow: has no effect where the default is allow; remove it, or make the default deny",
		}},
		{"egress without a port", aWorkload + "  egress: {default: deny, allow: [api.example]}\n---\n" + aProvider, []string{
			`bad.yaml:7: spec.egress.allow[0]: "api.example" has no port; write it as name:port`,
		}},
		{"an unknown issuer", inWorkload("issuer: corp-idp", "issuer: corp"), []string{
			`bad.yaml:6: spec.identity.issuer: no IdentityProvider document is named "corp"; there are corp-idp`,
		}},
		{"an unknown audience", inWorkload("audience: chaperone", "audience: vault"), []string{
			`bad.yaml:6: spec.identity.audience: "vault" is none of the audiences of corp-idp: chaperone`,
		}},
		{"two of one pattern", aWorkload + "---\n" + inWorkload("name: nightly}", "name: other}"), []string{
			`bad.yaml:12: spec.select.run.name: Workload "nightly" selects "nightly-*" already`,
		}},
		{"the local provider", inProvider("name: corp-idp", "name: local"), []string{
			`bad.yaml:3: metadata.name: "local" is reserved for the users of the node itself`,
		}},
		{"an issuer over http", inProvider("https://", "http://"), []string{
			"bad.yaml:4: spec.issuer: must be an https URL; http is accepted for loopback addresses only",
		}},
		{"no audience", inProvider("[chaperone]", "[]"), []string{
			"bad.yaml:4: spec.audiences: needs at least one audience, or any token of the issuer would do",
		}},
		{"claims that are none", inProvider("[chaperone]}", "[chaperone], claims: {subject: \"a..b\", groups: \"my groups\"}, bearerTokenFile: token}"), []string{
			`bad.yaml:4: spec.claims.subject: "a..b" is no path of a claim; write it as "groups" or "realm_access.roles"`,
			`bad.yaml:4: spec.claims.groups: "my groups" is no path of a claim; write it as "groups" or "realm_access.roles"`,
			`bad.yaml:4: spec.bearerTokenFile: must be an absolute path without "." and ".." parts`,
		}},
		{"two ways to a token", inWorkload("audience: chaperone", "clientCredentials: {clientSecretFrom: {}, scopes: ['a b']}"), []string{
			"bad.yaml:6: spec.identity.tokenFile: has no place beside clientCredentials; only one of them may be set",
			"bad.yaml:6: spec.identity.clientCredentials.clientID: is missing; it is the service account's at the issuer",
			"bad.yaml:6: spec.identity.clientCredentials.clientSecretFrom: needs file",
			`bad.yaml:6: spec.identity.clientCredentials.scopes[0]: "a b" is no scope; list one an item`,
		}},

		// Policy.
		{"nobody", inPolicy("{groups: [planners]}", "{}"), []string{
			"bad.yaml:5: spec.principals: matches nobody; it needs groups or subjects",
		}},
		{"principals in no form", inPolicy("{groups: [planners]}", `{groups: ["*"], subjects: [alice, "bob@corp-idp"]}`), []string{
			`bad.yaml:5: spec.principals.groups[0]: groups have no wildcard; everybody is subjects: ["*"]`,
			`bad.yaml:5: spec.principals.subjects[0]: "alice" must be subject@issuer, *@issuer or "*", where the issuer is an IdentityProvider's name or "local"`,
			`bad.yaml:5: spec.principals.subjects[1]: no IdentityProvider document is named "corp-idp"`,
		}},
		{"an unknown target", inPolicy("[orders-db]", "[order-db]"), []string{
			`bad.yaml:6: spec.targets[0]: no Target document is named "order-db"; there are orders-db`,
		}},
		{"no rules", inPolicy(`    - {name: read, when: "statement.readOnly", then: allow}`, "    []"), []string{
			"bad.yaml:7: spec.rules: needs at least one rule",
		}},
		{"a list without end", inPolicy("[orders-db]", "["+strings.Repeat("orders-db, ", 1001)+"]"), []string{
			"bad.yaml:6: spec.targets: has more than 1000 items",
		}},
		{"two rules of one name", rule("{name: r, when: 'true', then: deny}\n    - {name: r, when: 'true', then: deny}"), []string{
			`bad.yaml:9: spec.rules[1].name: another rule of this policy is named "r"`,
		}},
		{"a rule of nothing", rule("{}"), []string{
			"bad.yaml:8: spec.rules[0].name: is missing",
			`bad.yaml:8: spec.rules[0].when: is missing; it is an expression such as "statement.readOnly"`,
			"bad.yaml:8: spec.rules[0].then: is missing; use allow, approve or deny",
		}},
		{"approve by nobody", rule("{name: r, when: 'true', then: approve, approval: {count: 1}}"), []string{
			"bad.yaml:8: spec.rules[0].approval.from: asks nobody; it needs groups or subjects",
		}},
		{"approve without saying how", rule("{name: r, when: 'true', then: approve}"), []string{
			"bad.yaml:8: spec.rules[0].approval: is missing; it says who is asked, as in {from: {groups: [dba]}}",
		}},
		{"an approval of what is allowed", rule("{name: r, when: 'true', then: allow, approval: {from: {groups: [dba]}}}"), []string{
			"bad.yaml:8: spec.rules[0].approval: has no effect unless then is approve",
		}},
		{"bad bounds of an approval", rule("{name: r, when: 'true', then: approve, approval: {from: {groups: ['*'], subjects: [\"x@corp\"]}, count: 11, within: 5s, mode: wait, per: day, standing: 25h}}"), []string{
			`bad.yaml:8: spec.rules[0].approval.from.groups[0]: groups have no wildcard; everybody is subjects: ["*"]`,
			"bad.yaml:8: spec.rules[0].approval.count: must be from 1 to 10",
			"bad.yaml:8: spec.rules[0].approval.within: must be from 10s to 24h",
			`bad.yaml:8: spec.rules[0].approval.mode: "wait" is unknown; use hold or retry`,
			`bad.yaml:8: spec.rules[0].approval.per: "day" is unknown; use session or command`,
			"bad.yaml:8: spec.rules[0].approval.standing: must be at most 24h",
			`bad.yaml:8: spec.rules[0].approval.from.subjects[0]: no IdentityProvider document is named "corp"`,
		}},
		{"no count, no time", rule("{name: r, when: 'true', then: approve, approval: {from: {groups: [dba]}, count: 0, within: 25h}}"), []string{
			"bad.yaml:8: spec.rules[0].approval.count: must be from 1 to 10",
			"bad.yaml:8: spec.rules[0].approval.within: must be from 10s to 24h",
		}},
		{"an escalation that comes too late", rule("{name: r, when: 'true', then: approve, approval: {from: {groups: [dba]}, escalate: [{after: 10m, to: {groups: [cto]}}, {to: {subjects: [\"x@corp\"]}}, {after: 1m}]}}"), []string{
			"bad.yaml:8: spec.rules[0].approval.escalate[0].after: must be less than within, which is 10m0s",
			"bad.yaml:8: spec.rules[0].approval.escalate[1].after: is missing; it is how long nobody has answered for",
			"bad.yaml:8: spec.rules[0].approval.escalate[2].to: asks nobody; it needs groups or subjects",
			`bad.yaml:8: spec.rules[0].approval.escalate[1].to.subjects[0]: no IdentityProvider document is named "corp"`,
		}},
		{"half enforced", inPolicy("targets: [orders-db]", "targets: [orders-db]\n  enforce: dry"), []string{
			`bad.yaml:7: spec.enforce: "dry" is unknown; use on or shadow`,
		}},
		{"an unknown action", rule("{name: r, when: 'true', then: audit}"), []string{
			`bad.yaml:8: spec.rules[0].then: "audit" is unknown; use allow, approve or deny`,
		}},
		{"a message nobody is told", rule("{name: r, when: 'true', then: allow, message: hello}"), []string{
			"bad.yaml:8: spec.rules[0].message: has no effect on an allow; it is told on a denial, and to who is asked for an approval",
		}},
		{"an unknown record", aPolicy + "  session: {record: none, maxRows: -1, maxDuration: -1h, maxBytes: much, maxSessions: -1}\n---\n" + aTarget, []string{
			"bad.yaml:9: spec.session.maxRows: is out of range: must be a whole number, not negative",
			"bad.yaml:9: spec.session.maxDuration: must not be negative",
			`bad.yaml:9: spec.session.maxBytes: must be a size such as "512MiB" or "1GiB"`,
			"bad.yaml:9: spec.session.maxSessions: is out of range: must be a whole number, not negative",
			`bad.yaml:9: spec.session.record: "none" is unknown; use durable or strict`,
		}},

		// Expressions.
		{"no expression", when("statement.readOnly &&"), []string{
			"bad.yaml:8: spec.rules[0].when: Syntax error: mismatched input '<EOF>'",
		}},
		{"an unknown variable", when("stmt.readOnly"), []string{
			`bad.yaml:8: spec.rules[0].when: unknown name "stmt"; the variables are now, principal, workload, target, session, statement`,
		}},
		{"an unknown field of a variable", when("statement.readonly"), []string{
			`bad.yaml:8: spec.rules[0].when: statement has no field "readonly"; it has text, kind, kinds, readOnly, ddl, tables, relations, columns, functions, hasWhere, multi`,
		}},
		{"another protocol's variable", when("command.text == 'x'"), []string{
			"bad.yaml:8: spec.rules[0].when: command is a fact of ssh targets, and this policy is for postgres",
		}},
		{"what none of all targets has", inPolicy("targets: [orders-db]", `targets: ["*"]`) + "---\n" + strings.Replace(rules("p", "r: allow: request.verb == 'get'"), "[orders-db]", `["*"]`, 1) + "---\n" + anSSHTarget, []string{
			"bad.yaml:27: spec.rules[0].when: request is a fact of kubernetes targets, and this policy is for postgres and ssh",
		}},
		{"two protocols at once", inPolicy("targets: [orders-db]", `targets: ["*"]`) + "---\n" + strings.Replace(rules("p", "r: allow: statement.readOnly || command.program == 'ls'"), "[orders-db]", `["*"]`, 1) + "---\n" + anSSHTarget, []string{
			"bad.yaml:27: spec.rules[0].when: names statement and command, which are never there at once; make two rules of it",
		}},
		{"a macro that hides a fact", when("principal.groups.exists(statement, statement == 'x')"), []string{
			`bad.yaml:8: spec.rules[0].when: calls a variable of its own "statement", which is a fact's name; call it something else`,
		}},
		{"a type error", when("statement.tables == 'orders'"), []string{
			"bad.yaml:8: spec.rules[0].when: found no matching overload for '_==_' applied to '(list(string), string)'",
		}},
		{"no bool", when("statement.kind"), []string{
			"bad.yaml:8: spec.rules[0].when: must yield a bool, but yields string",
		}},
		{"an untyped claim", when("principal.claims.admin"), []string{
			"bad.yaml:8: spec.rules[0].when: must yield a bool, but yields dyn; compare it, as in principal.claims.admin == true",
		}},
		{"an unknown function", when("statement.kind.lower() == 'x'"), []string{
			`bad.yaml:8: spec.rules[0].when: unknown function "lower"`,
		}},
		{"a bad regular expression", when("statement.text.matches('(')"), []string{
			"bad.yaml:8: spec.rules[0].when: the regular expression is invalid or too large; its syntax is RE2's",
		}},
		{"a huge regular expression", when("statement.text.matches('((a{100}){100}){100}')"), []string{
			"bad.yaml:8: spec.rules[0].when: the regular expression is invalid or too large; its syntax is RE2's",
		}},
		{"a bad literal", when("session.age > duration('1 hour')"), []string{
			"bad.yaml:8: spec.rules[0].when: the duration is invalid; write it as duration('90s') or duration('1h30m')",
		}},
		{"an unknown time zone", when("now.getHours('Europe/Berln') < 7"), []string{
			`bad.yaml:8: spec.rules[0].when: unknown time zone "Europe/Berln"; write it as "Europe/Berlin" or "+02:00"`,
		}},
		{"the node's time zone", when("now.getHours('Local') < 7"), []string{
			`bad.yaml:8: spec.rules[0].when: time zone "Local" depends on the node; name one, such as "UTC" or "Europe/Berlin"`,
		}},
		{"a time zone of a variable", when("now.getHours(workload.name) < 7"), []string{
			"bad.yaml:8: spec.rules[0].when: getHours takes the time zone as a literal, such as 'Europe/Berlin'",
		}},
		{"comprehensions without end", when("statement.tables.all(a, statement.tables.all(b, statement.tables.all(c, a == c)))"), []string{
			"bad.yaml:8: spec.rules[0].when: comprehension exceeds nesting limit",
		}},
		{"a long expression", when(strings.Repeat("true && ", 600) + "true"), []string{
			"bad.yaml:8: spec.rules[0].when: expression code point size exceeds limit: size: 4804, limit 4096",
		}},
		{"a made-up fact", when("Statement{kind: 'SELECT'}.readOnly"), []string{
			"bad.yaml:8: spec.rules[0].when: objects can't be made in an expression",
		}},
		{"the line within a block", rule("name: r\n      then: allow\n      when: |\n        statement.readOnly &&\n        statement.foo"), []string{
			`bad.yaml:12: spec.rules[0].when: statement has no field "foo"; it has text, kind, kinds, readOnly, ddl, tables, relations, columns, functions, hasWhere, multi`,
		}},

		// Mask.
		{"a mask of nothing", head + "kind: Mask\nmetadata: {name: m}\nspec: {targets: ['*']}\n", []string{
			"bad.yaml:4: spec: masks nothing; it needs columns or detect",
		}},
		{"a bad column pattern", inMask("public.customers.card_number", "customers.card_number"), []string{
			`bad.yaml:7: spec.columns[0].match: "customers.card_number" is no column pattern; write schema.table.column, with "*" for any`,
		}},
		{"an unknown transform", inMask("with: redact", "with: hide"), []string{
			`bad.yaml:8: spec.columns[1].with: unknown transform "hide"; known are redact, null, {keepFirst: N}, {keepLast: N}, {hmac: KEY}, {formatPreserving: KEY}, {truncate: year} and {fixed: TEXT}`,
		}},
		{"a key that the node lacks", inMask("with: redact", "with: {hmac: key}") + "---\n" + node("{keys: {email: {file: /etc/chaperone/secrets/email.key}}}"), []string{
			`bad.yaml:8: spec.columns[1].with.hmac: the Node document's keys hold none named "key"; there are email`,
		}},
		{"no key's name", inMask("with: redact", "with: {hmac: A/B}"), []string{
			`bad.yaml:8: spec.columns[1].with.hmac: "A/B" is no valid name: lower-case letters, digits, "-" and ".", at most 63, a letter or digit at both ends`,
		}},
		{"two transforms", inMask("{keepLast: 4}", "{keepLast: 4, redact: true}"), []string{
			"bad.yaml:7: spec.columns[0].with: has redact and keepLast, but only one of them may be set",
		}},
		{"transforms that do nothing", inMask("{keepLast: 4}", "{keepLast: 0}"), []string{
			"bad.yaml:7: spec.columns[0].with.keepLast: must be at least 1; redact keeps nothing",
		}},
		{"a transform switched off", inMask("with: redact", "with: {redact: false}"), []string{
			"bad.yaml:8: spec.columns[1].with.redact: must be true, or left out",
		}},
		{"a format-preserving key that the node lacks", inMask("with: redact", "with: {formatPreserving: key}") + "---\n" + node("{keys: {email: {file: /etc/chaperone/secrets/email.key}}}"), []string{
			`bad.yaml:8: spec.columns[1].with.formatPreserving: the Node document's keys hold none named "key"; there are email`,
		}},
		{"no unit to truncate to", inMask("with: redact", "with: {truncate: decade}"), []string{
			`bad.yaml:8: spec.columns[1].with.truncate: "decade" is unknown; use year or month`,
		}},
		{"an empty fixed text", inMask("with: redact", "with: {fixed: ''}"), []string{
			"bad.yaml:8: spec.columns[1].with.fixed: must not be empty; null leaves nothing",
		}},
		{"a fixed text that is too long", inMask("with: redact", "with: {fixed: '"+strings.Repeat("x", 1025)+"'}"), []string{
			"bad.yaml:8: spec.columns[1].with.fixed: has 1025 bytes, at most 1024 are allowed",
		}},
		{"a fixed number", inMask("with: redact", "with: {fixed: 0}"), []string{
			"bad.yaml:8: spec.columns[1].with.fixed: must be a string, but is a number; put it in quotes",
		}},
		{"no transform", inMask(", with: redact", ""), []string{
			"bad.yaml:8: spec.columns[1].with: is missing; it is a transform such as redact or {keepLast: 4}",
		}},
		{"an unknown detector", inMask("email,", "emails,"), []string{
			`bad.yaml:10: spec.detect[1]: unknown detector "emails"; known are payment-card, iban, email, phone, us-ssn, private-key, jwt, cloud-key, url-password`,
		}},
		{"untraceable by a human", aMask + "  untraceable: approve\n---\n" + aTarget, []string{
			"bad.yaml:4: spec.approval: is missing; it says who is asked, as in {from: {groups: [dba]}}",
		}},
		{"a human nobody needs", aMask + "  approval: {from: {subjects: [\"x@corp\"]}}\n---\n" + aTarget, []string{
			"bad.yaml:12: spec.approval: has no effect unless untraceable or predicates is approve",
		}},
		{"predicates by a human", aMask + "  predicates: approve\n---\n" + aTarget, []string{
			"bad.yaml:4: spec.approval: is missing; it says who is asked, as in {from: {groups: [dba]}}",
		}},
		{"unknown predicates", aMask + "  predicates: equals\n---\n" + aTarget, []string{
			`bad.yaml:12: spec.predicates: "equals" is unknown; use allow, equality, approve or deny`,
		}},
		{"untraceable in the clear", aMask + "  untraceable: allow\n---\n" + aTarget, []string{
			`bad.yaml:12: spec.untraceable: "allow" is unknown; use deny or approve`,
		}},

		// Node.
		{"bad settings", node("{cluster: A.B., cgroup: ../x, pinDir: bpf, listenPort: 70000, limits: {sessions: 10, sessionsPerJob: 20, connectTimeout: 0s}, journal: {maxBytes: 1MiB}}"), []string{
			`bad.yaml:3: spec.cluster: "A.B." is no valid name: lower-case letters, digits, "-" and ".", at most 63, a letter or digit at both ends`,
			`bad.yaml:3: spec.cgroup: must be a path below the cgroup v2 mount, such as "chaperone", without leading "/" and without ".."`,
			`bad.yaml:3: spec.pinDir: must be an absolute path without "." and ".." parts`,
			"bad.yaml:3: spec.listenPort: must be from 1 to 65535",
			"bad.yaml:3: spec.limits.connectTimeout: must be from 100ms to 10m",
			"bad.yaml:3: spec.journal.maxBytes: must be at least 16MiB",
			"bad.yaml:3: spec.limits.sessionsPerJob: must not be more than sessions, which is 10",
		}},
		{"no authority, too many approvals, no keys", node("{authority: {keys: [hunter2, 'aGVsbG8=']}, limits: {approvals: 5, approvalsPerJob: 6}, keys: {Email: {file: /a}, phone: {file: hunter2}, tax: {}}}"), []string{
			`bad.yaml:3: spec.authority.keys[0]: is no Ed25519 public key in base64, as "chaperone-sink key" prints it`,
			`bad.yaml:3: spec.authority.keys[1]: is no Ed25519 public key in base64, as "chaperone-sink key" prints it`,
			`bad.yaml:3: spec.keys.Email: "Email" is no valid name: lower-case letters, digits, "-" and ".", at most 63, a letter or digit at both ends`,
			`bad.yaml:3: spec.keys.phone.file: must be an absolute path without "." and ".." parts`,
			"bad.yaml:3: spec.keys.tax: needs file",
			"bad.yaml:3: spec.limits.approvalsPerJob: must not be more than approvals, which is 5",
		}},
		{"a password in the URL", node("{nats: {url: \"nats://u:hunter2@a:4222\"}}"), []string{
			"bad.yaml:3: spec.nats.url: must not hold a credential; use credsFile or nkeyFile",
		}},
		{"two credentials, no URL", node("{nats: {credsFile: /a, nkeyFile: /b}}"), []string{
			"bad.yaml:3: spec.nats.url: is missing; it is an address such as tls://nats.example:4222",
			"bad.yaml:3: spec.nats.nkeyFile: has no place beside credsFile; only one of them may be set",
		}},
		{"no such URL", node("{nats: {url: \"a:4222\"}}"), []string{
			"bad.yaml:3: spec.nats.url: must be one or more of nats://host:port, tls://host:port, ws://host:port, wss://host:port, separated by commas",
		}},

		// Sink.
		{"two sinks", aSink + "---\n" + inSink("", ""), []string{
			"bad.yaml:16: metadata.name: another Sink document exists: bad.yaml:1",
		}},
		{"a sink of nothing", head + "kind: Sink\nspec: {}\n", []string{
			`bad.yaml:3: spec.listen: is missing; it is "address:port", such as "0.0.0.0:8443"`,
			"bad.yaml:3: spec.url: is missing; it is what browsers and command lines call the sink, such as https://chaperone.corp.example",
			"bad.yaml:3: spec.login.issuer: is missing; it names an IdentityProvider document",
			"bad.yaml:3: spec.login.clientID: is missing; it is the page's client at the issuer",
		}},
		{"a sink in the clear", inSink("  tls: {certFile: /etc/chaperone/tls.crt, keyFile: /etc/chaperone/tls.key}\n", ""), []string{
			"bad.yaml:3: spec.tls: is missing; only a sink that listens on loopback may do without",
		}},
		{"a sink's name as its address", inSink("0.0.0.0:8443", "chaperone.example:8443"), []string{
			`bad.yaml:4: spec.listen: "chaperone.example:8443" is no "address:port", such as "0.0.0.0:8443"`,
		}},
		{"a sink's URL over http", inSink("https://chaperone", "http://chaperone"), []string{
			"bad.yaml:5: spec.url: must be an https URL; http is accepted for loopback addresses only",
		}},
		{"a sink's URL with more in it", inSink("chaperone.example\"", "u:hunter2@chaperone.example/x\""), []string{
			"bad.yaml:5: spec.url: must be an https URL without user, path, query and fragment",
		}},
		{"a key beside the certificate", inSink(", keyFile: /etc/chaperone/tls.key", ""), []string{
			`bad.yaml:6: spec.tls.keyFile: must be an absolute path without "." and ".." parts`,
		}},
		{"an unknown login", inSink("issuer: corp-idp, clientID", "issuer: corp, sessionLife: 30d, clientSecretFrom: {file: secret}, clientID"), []string{
			`bad.yaml:7: spec.login.sessionLife: must be a duration such as "90s", "15m" or "1h30m"`,
			`bad.yaml:7: spec.login.clientSecretFrom.file: must be an absolute path without "." and ".." parts`,
			`bad.yaml:7: spec.login.issuer: no IdentityProvider document is named "corp"; there are corp-idp`,
		}},
		{"a login without end", inSink("issuer: corp-idp, clientID", "issuer: corp-idp, sessionLife: 200h, clientID"), []string{
			"bad.yaml:7: spec.login.sessionLife: must be from 1m to 168h",
		}},
		{"admins of another issuer", inSink("{groups: [platform]}", `{subjects: ["x@corp"]}`), []string{
			`bad.yaml:8: spec.admins.subjects[0]: no IdentityProvider document is named "corp"; there are corp-idp`,
		}},
		{"two webhooks of one name", inSink("{name: audit, urlFrom: {file: /etc/chaperone/secrets/audit.url}}", "{name: chat, urlFrom: {}, format: xml}"), []string{
			`bad.yaml:11: spec.webhooks[1].name: another webhook is named "chat"`,
			"bad.yaml:11: spec.webhooks[1].urlFrom: needs file",
			`bad.yaml:11: spec.webhooks[1].format: "xml" is unknown; use json or slack`,
		}},
		{"people who are nobody", inSink("{id: U012AB3CD, subject: alice, issuer: corp-idp}", "{id: U1, subject: alice, issuer: corp}, {id: U1}"), []string{
			`bad.yaml:14: spec.slack.people[1].id: "U1" is listed twice`,
			"bad.yaml:14: spec.slack.people[1].subject: is missing; it is the person's at the issuer",
			"bad.yaml:14: spec.slack.people[1].issuer: is missing; it names an IdentityProvider document",
			`bad.yaml:14: spec.slack.people[0].issuer: no IdentityProvider document is named "corp"; there are corp-idp`,
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			set, err := policy.Parse("bad.yaml", []byte(test.text))
			if err == nil {
				t.Fatalf("accepted as revision %s", set.Revision)
			}
			if diff := cmp.Diff(test.want, policy.Messages(err)); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the error holds a secret")
			}
		})
	}
}

// However much is wrong, a reader and an event can take what is said of it.
func TestErrorsAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(head + "kind: Policy\nmetadata: {name: p}\nspec:\n  principals: {subjects: ['*']}\n  targets: ['*']\n  rules:\n")
	for range 900 {
		b.WriteString("    - {}\n")
	}
	_, err := policy.Parse("bad.yaml", []byte(b.String()))
	messages := policy.Messages(err)
	if len(messages) != 100 || !strings.HasSuffix(messages[99], "and more errors from here on; correct these first") {
		t.Errorf("%d errors, the last of them %q", len(messages), messages[len(messages)-1])
	}
}
