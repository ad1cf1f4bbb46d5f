package policy

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Workload says which jobs are planners, and how each proves who it is.
type Workload struct {
	Metadata Metadata     `json:"metadata" yaml:"metadata"`
	Spec     WorkloadSpec `json:"spec" yaml:"spec"`
}

// WorkloadSpec is the body of a Workload document.
type WorkloadSpec struct {
	Select WorkloadSelect `json:"select" yaml:"select"`
	// Identity names the issuer of the job's token. Without it the job's
	// principal is what the node itself vouches for: the local user that
	// started it, the unit, or the pod's service account.
	Identity *IdentitySpec `json:"identity,omitempty" yaml:"identity,omitempty"`
	// Egress restricts where the job may go besides targets. Without it, it
	// may go anywhere that is no target.
	Egress *EgressSpec `json:"egress,omitempty" yaml:"egress,omitempty"`
}

// WorkloadSelect holds exactly one way to select jobs.
type WorkloadSelect struct {
	Run        *RunSelect        `json:"run,omitempty" yaml:"run,omitempty"`
	Systemd    *SystemdSelect    `json:"systemd,omitempty" yaml:"systemd,omitempty"`
	Kubernetes *KubernetesSelect `json:"kubernetes,omitempty" yaml:"kubernetes,omitempty"`
}

// RunSelect selects jobs that were started by "chaperone run".
type RunSelect struct {
	// Name is a [path.Match] pattern over the job's name.
	Name string `json:"name" yaml:"name"`
}

// SystemdSelect selects system units below the node's ancestor cgroup.
type SystemdSelect struct {
	// Unit is a [path.Match] pattern over the unit's full name, such as
	// "planner@*.service" or "planner-*.scope".
	Unit string `json:"unit" yaml:"unit"`
}

// KubernetesSelect selects pods of this node, by all that is given.
type KubernetesSelect struct {
	// Namespace is a [path.Match] pattern.
	Namespace string `json:"namespace" yaml:"namespace"`
	// ServiceAccount is a pattern too; empty matches any.
	ServiceAccount string `json:"serviceAccount,omitempty" yaml:"serviceAccount,omitempty"`
	// Labels are all among the pod's.
	Labels map[string]string `json:"labels,omitempty" yaml:"labels,omitempty"`
}

// IdentitySpec says how a job proves who it acts for.
type IdentitySpec struct {
	// Issuer names an IdentityProvider document.
	Issuer string `json:"issuer" yaml:"issuer"`
	// TokenFile is where the job's token is; "chaperone run --token-file"
	// overrides it.
	TokenFile string `json:"tokenFile,omitempty" yaml:"tokenFile,omitempty"`
	// Audience must be in the token's "aud"; empty means one of the
	// provider's audiences.
	Audience string `json:"audience,omitempty" yaml:"audience,omitempty"`
	// ClientCredentials has the node ask the issuer for the job's token, as a
	// service account there (RFC 6749, section 4.4). It has no place beside TokenFile.
	ClientCredentials *ClientCredentialsSpec `json:"clientCredentials,omitempty" yaml:"clientCredentials,omitempty"`
}

// ClientCredentialsSpec is a service account at an issuer.
type ClientCredentialsSpec struct {
	ClientID         string       `json:"clientID" yaml:"clientID"`
	ClientSecretFrom SecretSource `json:"clientSecretFrom" yaml:"clientSecretFrom"`
	Scopes           []string     `json:"scopes,omitempty" yaml:"scopes,omitempty"`
}

// The defaults of EgressSpec.
const (
	EgressAllow = "allow"
	EgressDeny  = "deny"
)

// EgressSpec restricts where a job may go besides targets and loopback, which it
// may always reach: targets by way of Chaperone.
type EgressSpec struct {
	// Default is EgressAllow or EgressDeny.
	Default string `json:"default" yaml:"default"`
	// Allow are the exceptions of EgressDeny; see [ParseHost]. A name stands for
	// the addresses that the node's resolvers gave for it.
	Allow []string `json:"allow,omitempty" yaml:"allow,omitempty"`
}

// Restricts tells whether the job may go to listed destinations only.
func (e *EgressSpec) Restricts() bool { return e != nil && e.Default == EgressDeny }

// ErrNoWorkload and ErrAmbiguousWorkload are wrapped by the errors of
// [Set.WorkloadForRun], [Set.WorkloadForUnit] and [Set.WorkloadForPod].
var (
	ErrNoWorkload        = errors.New("no Workload document selects the job")
	ErrAmbiguousWorkload = errors.New("more than one Workload document selects the job")
)

// WorkloadForRun returns the Workload that selects a "chaperone run" job of
// the name. More than one is an error: they may differ in how the job must
// prove who it is.
func (s *Set) WorkloadForRun(job string) (*Workload, error) {
	w, err := s.workloadFor(job, func(sel WorkloadSelect) bool { return sel.Run != nil && sel.Run.Matches(job) })
	if errors.Is(err, ErrNoWorkload) {
		err = fmt.Errorf("%w; add one whose select.run.name matches it", err)
	}
	return w, err
}

// WorkloadForUnit returns the Workload that selects a systemd unit.
func (s *Set) WorkloadForUnit(unit string) (*Workload, error) {
	return s.workloadFor(unit, func(sel WorkloadSelect) bool { return sel.Systemd != nil && matches(sel.Systemd.Unit, unit) })
}

// PodFacts are what a pod is selected by.
type PodFacts struct {
	Namespace, Name, ServiceAccount string
	Labels                          map[string]string
}

// WorkloadForPod returns the Workload that selects a pod.
func (s *Set) WorkloadForPod(pod PodFacts) (*Workload, error) {
	return s.workloadFor(pod.Namespace+"/"+pod.Name, func(sel WorkloadSelect) bool {
		return sel.Kubernetes != nil && sel.Kubernetes.matches(pod)
	})
}

func (k *KubernetesSelect) matches(pod PodFacts) bool {
	if !matches(k.Namespace, pod.Namespace) || k.ServiceAccount != "" && !matches(k.ServiceAccount, pod.ServiceAccount) {
		return false
	}
	for key, value := range k.Labels {
		if got, ok := pod.Labels[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// HasKubernetes tells whether some Workload selects pods.
func (s *Set) HasKubernetes() bool {
	for _, w := range s.Workloads {
		if w.Spec.Select.Kubernetes != nil {
			return true
		}
	}
	return false
}

func (s *Set) workloadFor(job string, selects func(WorkloadSelect) bool) (*Workload, error) {
	var found *Workload
	for _, w := range s.Workloads {
		if !selects(w.Spec.Select) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w %s: %s and %s; make their patterns exclude each other",
				ErrAmbiguousWorkload, quote(job), found.Metadata.Name, w.Metadata.Name)
		}
		found = w
	}
	if found == nil {
		return nil, fmt.Errorf("%w %s", ErrNoWorkload, quote(job))
	}
	return found, nil
}

// Matches tells whether a job of the name is selected.
func (r RunSelect) Matches(job string) bool { return job != "" && matches(r.Name, job) }

func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

func (d *document) checkWorkload(w *WorkloadSpec) {
	d.checkOneOf("spec.select", "run", "systemd", "kubernetes")
	if run := w.Select.Run; run != nil {
		d.checkPattern("spec.select.run.name", run.Name, "nightly-*")
	}
	if systemd := w.Select.Systemd; systemd != nil {
		d.checkPattern("spec.select.systemd.unit", systemd.Unit, "planner@*.service")
		if systemd.Unit != "" && !strings.Contains(systemd.Unit, ".") && !strings.Contains(systemd.Unit, "*") {
			d.errorf("spec.select.systemd.unit", "%s has no type; write it as %s", quote(systemd.Unit), quote(systemd.Unit+".service"))
		}
	}
	if k := w.Select.Kubernetes; k != nil {
		d.checkPattern("spec.select.kubernetes.namespace", k.Namespace, "planners")
		if d.has("spec.select.kubernetes.serviceAccount") {
			d.checkPattern("spec.select.kubernetes.serviceAccount", k.ServiceAccount, "planner")
		}
	}
	d.checkEgress(w.Egress)
	if w.Identity != nil {
		if w.Identity.Issuer == "" {
			d.errorf("spec.identity.issuer", "is missing; it names an IdentityProvider document")
		}
		d.checkOptionalFile("spec.identity.tokenFile", w.Identity.TokenFile)
		if d.has("spec.identity.audience") && w.Identity.Audience == "" {
			d.errorf("spec.identity.audience", "is empty")
		}
		switch {
		case w.Identity.ClientCredentials != nil:
			d.checkClientCredentials(w.Identity.ClientCredentials)
		case w.Select.Run == nil && !d.has("spec.identity.tokenFile"):
			d.errorf("spec.identity.tokenFile", "is missing; it is where the job finds its token, as it sees it")
		}
	}
}

func (d *document) checkClientCredentials(c *ClientCredentialsSpec) {
	const at = "spec.identity.clientCredentials"
	if d.has("spec.identity.tokenFile") {
		d.errorf("spec.identity.tokenFile", "has no place beside clientCredentials; only one of them may be set")
	}
	if c.ClientID == "" {
		d.errorf(at+".clientID", "is missing; it is the service account's at the issuer")
	}
	d.checkSecret(at+".clientSecretFrom", c.ClientSecretFrom)
	d.checkScopes(at+".scopes", c.Scopes)
}

// checkScopes wants scope tokens of RFC 6749, section 3.3.
func (d *document) checkScopes(at string, scopes []string) {
	d.checkList(at, scopes)
	for i, scope := range scopes {
		if strings.ContainsFunc(scope, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			d.errorf(fmt.Sprintf("%s[%d]", at, i), "%s is no scope; list one an item", quote(scope))
		}
	}
}

func (d *document) checkPattern(at, pattern, example string) {
	if pattern == "" {
		d.errorf(at, "is missing; it is a pattern such as %q", example)
	} else if _, err := path.Match(pattern, ""); err != nil {
		d.errorf(at, "%s is no valid pattern", quote(pattern))
	}
}

func (d *document) checkEgress(e *EgressSpec) {
	if e == nil {
		return
	}
	const at = "spec.egress"
	switch e.Default {
	case EgressDeny:
	case EgressAllow:
		if len(e.Allow) > 0 {
			d.errorf(at+".allow", "has no effect where the default is allow; remove it, or make the default deny")
		}
	case "":
		d.errorf(at+".default", "is missing; it is allow or deny")
	default:
		d.errorf(at+".default", "%s is neither allow nor deny", quote(e.Default))
	}
	d.checkList(at+".allow", e.Allow)
	for i, text := range e.Allow {
		if _, err := ParseHost(text); err != nil {
			d.errorf(fmt.Sprintf("%s.allow[%d]", at, i), "%s", err)
		}
	}
}
