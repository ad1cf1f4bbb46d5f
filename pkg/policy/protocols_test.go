package policy_test

import (
	"testing"

	"chaperone.dev/chaperone/pkg/policy"
	"github.com/google/go-cmp/cmp"
)

const everything = `apiVersion: chaperone.dev/v1alpha1
kind: Policy
metadata: {name: everything}
spec:
  principals: {groups: [planners]}
  targets: ["*"]
  rules:
    - {name: statements, when: "statement.readOnly", then: allow}
    - name: commands
      when: >-
        command.text == 'ls -l | wc' && command.argv == ['ls', '-l'] && command.program == 'ls' && command.programs.all(p, p in ['ls', 'wc'])
        && !command.interactive && command.subsystem == '' && command.forward == ''
      then: allow
    - {name: shells, when: "command.interactive", then: deny}
    - {name: files, when: "file.op in ['read', 'list'] && file.path.startsWith('/srv/') && file.size < 1000", then: allow}
    - name: requests
      when: >-
        request.verb == 'get' && request.group == 'apps' && request.version == 'v1' && request.resource == 'deployments' && request.subresource == ''
        && request.namespace == 'shop' && request.name == 'web' && request.nonResourcePath == '' && workload.image.startsWith('registry.example/')
      then: allow
`

func TestEachProtocol(t *testing.T) {
	set := mustParse(t, aTarget, anSSHTarget, aKubeTarget, everything)
	if diff := cmp.Diff([]string{"kubernetes", "postgres", "ssh"}, set.Protocols()); diff != "" {
		t.Errorf("protocols (-want +got):\n%s", diff)
	}
	if ssh := set.Target("build-host").Spec; ssh.TLS != (policy.TLSSpec{}) || ssh.Credential.SSHCert.TTL.String() != "5m0s" {
		t.Errorf("the SSH target is %+v", ssh)
	}
	if kube := set.Target("cluster").Spec; kube.TLS.Mode != policy.TLSVerifyFull || kube.Credential.KubeToken.TTL.String() != "10m0s" {
		t.Errorf("the cluster is %+v", kube)
	}
	job := job
	job.Image = "registry.example/planner:7"
	bind := func(target string) *policy.Bound {
		return set.Bind(planner, job, policy.TargetFacts{Name: target, Protocol: set.Target(target).Spec.Protocol})
	}
	ssh, kube := bind("build-host"), bind("cluster")
	for _, test := range []struct {
		name  string
		bound *policy.Bound
		asked policy.Asked
		by    string // the rule, or the message
	}{
		{"a command", ssh, policy.Asked{Command: &policy.Command{Text: "ls -l | wc", Argv: []string{"ls", "-l"}, Program: "ls", Programs: []string{"ls", "wc"}}}, "commands"},
		{"another command", ssh, policy.Asked{Command: &policy.Command{Text: "rm x", Program: "rm"}}, `no rule allows the command "rm" for "nightly@jobs.example@corp-idp" at target "build-host"`},
		{"a shell", ssh, policy.Asked{Command: &policy.Command{Interactive: true}}, "shells"},
		{"a subsystem", ssh, policy.Asked{Command: &policy.Command{Subsystem: "sftp"}}, `no rule allows the subsystem "sftp" for "nightly@jobs.example@corp-idp" at target "build-host"`},
		{"a forwarding", ssh, policy.Asked{Command: &policy.Command{Forward: "local"}}, `no rule allows "local" forwarding for "nightly@jobs.example@corp-idp" at target "build-host"`},
		{"a file", ssh, policy.Asked{File: &policy.File{Op: "read", Path: "/srv/a", Size: 999}}, "files"},
		{"a large file", ssh, policy.Asked{File: &policy.File{Op: "read", Path: "/srv/a", Size: 1000}}, `no rule allows read of "/srv/a" for "nightly@jobs.example@corp-idp" at target "build-host"`},
		{"a request", kube, policy.Asked{Request: &policy.Request{Verb: "get", Group: "apps", Version: "v1", Resource: "deployments", Namespace: "shop", Name: "web"}}, "requests"},
		{"another request", kube, policy.Asked{Request: &policy.Request{Verb: "list", Resource: "secrets"}}, `no rule allows list "secrets" for "nightly@jobs.example@corp-idp" at target "cluster"`},
		{"a path", kube, policy.Asked{Request: &policy.Request{Verb: "get", NonResourcePath: "/metrics"}}, `no rule allows get "/metrics" for "nightly@jobs.example@corp-idp" at target "cluster"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := test.bound.Decide(noon, policy.SessionFacts{}, test.asked)
			if by := got.Rule; by != test.by && got.Message != test.by {
				t.Errorf("decided as %+v", got)
			}
			if !got.Lasting {
				t.Error("the same would be asked again")
			}
			explained, results := test.bound.ExplainAsked(noon, policy.SessionFacts{}, test.asked)
			if diff := cmp.Diff(got, explained); diff != "" {
				t.Errorf("explained otherwise (-decided +explained):\n%s", diff)
			}
			asked := map[string]bool{}
			for _, r := range results {
				asked[r.Rule] = r.Asked
			}
			want := map[string]bool{
				"statements": false, "commands": test.asked.Command != nil, "shells": test.asked.Command != nil,
				"files": test.asked.File != nil, "requests": test.asked.Request != nil,
			}
			if diff := cmp.Diff(want, asked); diff != "" {
				t.Errorf("rules asked (-want +got):\n%s", diff)
			}
		})
	}
	for name, d := range map[string]policy.Decision{
		"command":        ssh.Command(noon, policy.SessionFacts{}, nil),
		"file operation": ssh.File(noon, policy.SessionFacts{}, nil),
		"request":        kube.Request(noon, policy.SessionFacts{}, nil),
	} {
		if d.Action != policy.Deny || d.Message != "there is no "+name+" to decide" {
			t.Errorf("no %s is decided as %+v", name, d)
		}
	}
}

// A policy whose targets aren't known, as of a part of what is loaded, may be
// about any protocol.
func TestProtocolsOfNoTarget(t *testing.T) {
	set := mustParse(t, everything)
	if got := set.Protocols(); len(got) != 0 {
		t.Errorf("protocols of no target: %q", got)
	}
}
