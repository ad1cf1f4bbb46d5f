package policy_test

import (
	"strings"
	"testing"

	"chaperone.dev/chaperone/pkg/policy"
)

// Documents that hold, for tests to build on.
const (
	aRole   = "postgresRole: {adminFrom: {file: /etc/chaperone/orders.dsn}, memberOf: [orders_reader]}"
	aCert   = "postgresCert: {user: app, commonName: app@jobs, caFile: /etc/chaperone/ca.pem, keyFile: /etc/chaperone/ca.key, ttl: 2m, adminFrom: {file: /a}}"
	aSecret = "postgresSecret: {user: app, passwordFrom: {file: /etc/chaperone/app.password}}"
	aTarget = `apiVersion: chaperone.dev/v1alpha1
kind: Target
metadata: {name: orders-db, labels: {tier: prod}}
spec:
  protocol: postgres
  hosts: ["orders.db.example:5432", "10.20.0.0/16:5432", "[2001:db8::1]:5432"]
  tls: {mode: verify-full, caFile: /etc/chaperone/ca.pem}
  credential:
    postgresRole: {adminFrom: {file: /etc/chaperone/orders.dsn}, memberOf: [orders_reader]}
`
	aWorkload = `apiVersion: chaperone.dev/v1alpha1
kind: Workload
metadata: {name: nightly}
spec:
  select: {run: {name: "nightly-*"}}
  identity: {issuer: corp-idp, tokenFile: /run/token, audience: chaperone}
`
	aProvider = `apiVersion: chaperone.dev/v1alpha1
kind: IdentityProvider
metadata: {name: corp-idp}
spec: {issuer: "https://idp.example", audiences: [chaperone]}
`
	aPolicy = `apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: orders}
spec:
  principals: {groups: [planners]}
  targets: [orders-db]
  rules:
    - {name: read, when: "statement.readOnly", then: allow}
`
	aMask = `apiVersion: chaperone.dev/v1alpha1
kind: Mask
metadata: {name: people}
spec:
  targets: [orders-db]
  columns:
    - {match: "public.customers.card_number", with: {keepLast: 4}}
    - {match: "*.*.password*", with: redact}
    - {match: "*.*.birth", with: {"null": true}}
  detect: [payment-card, email, private-key, jwt, cloud-key]
  exempt: {groups: [data-stewards]}
`
	anSSHTarget = `apiVersion: chaperone.dev/v1alpha1
kind: Target
metadata: {name: build-host}
spec:
  protocol: ssh
  hosts: ["build.example:22"]
  hostKeys: {knownHostsFile: /etc/chaperone/known_hosts}
  credential: {sshCert: {principals: [planner]}}
`
	aKubeTarget = `apiVersion: chaperone.dev/v1alpha1
kind: Target
metadata: {name: cluster}
spec:
  protocol: kubernetes
  hosts: ["kube.example:6443"]
  tls: {caFile: /etc/chaperone/kube-ca.pem}
  credential: {kubeToken: {adminFrom: {file: /etc/chaperone/kubeconfig}, serviceAccount: agents/planner}}
`
	aSink = `apiVersion: chaperone.dev/v1alpha1
kind: Sink
spec:
  listen: 0.0.0.0:8443
  url: "https://chaperone.example"
  tls: {certFile: /etc/chaperone/tls.crt, keyFile: /etc/chaperone/tls.key}
  login: {issuer: corp-idp, clientID: chaperone, scopes: [groups]}
  admins: {groups: [platform]}
  webhooks:
    - {name: chat, urlFrom: {file: /etc/chaperone/secrets/chat.url}, format: slack}
    - {name: audit, urlFrom: {file: /etc/chaperone/secrets/audit.url}}
  slack:
    signingSecretFrom: {file: /etc/chaperone/secrets/slack}
    people: [{id: U012AB3CD, subject: alice, issuer: corp-idp}]
`
	aNode = `apiVersion: chaperone.dev/v1alpha1
kind: Node
spec: {cluster: north}
`
)

func stream(documents ...string) string { return strings.Join(documents, "---\n") }

func mustParse(t testing.TB, documents ...string) *policy.Set {
	t.Helper()
	set, err := policy.Parse("test.yaml", []byte(stream(documents...)))
	if err != nil {
		t.Fatal(err)
	}
	return set
}
