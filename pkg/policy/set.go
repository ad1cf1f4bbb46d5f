package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Set is all documents of one load, with their defaults filled in and their
// expressions compiled. The documents of a kind are sorted by name. A set and
// everything that it holds is shared and must not be changed; any number of
// goroutines may use it.
//
// The zero Set holds nothing and allows nothing.
type Set struct {
	// Revision is the first 16 hex digits of a SHA-256 over the documents'
	// content. It doesn't change with comments, order or file names.
	Revision string

	// Node holds the node's settings; without a Node document it has the
	// defaults and no name.
	Node Node

	Targets           []*Target
	Workloads         []*Workload
	IdentityProviders []*IdentityProvider
	Policies          []*Policy
	Masks             []Mask
	// Sink holds the central sink's settings; nil without a Sink document.
	Sink *Sink `json:",omitempty"`

	compiled []compiledPolicy     // one per policy, in the same order
	facts    map[string]*factType // by variable
}

// set makes the set of the loaded documents. Expressions that don't compile
// are reported like everything else; the error is for what can't be reported
// so.
func (l *loader) set() (*Set, error) {
	s := &Set{}
	for _, n := range l.nodes {
		s.Node = *n.doc
	}
	for _, sink := range l.sinks {
		s.Sink = sink.doc
	}
	s.Node.Spec.setDefaults()
	s.Targets = sortedDocs(l.targets, func(t *Target) string { return t.Metadata.Name })
	s.Workloads = sortedDocs(l.workloads, func(w *Workload) string { return w.Metadata.Name })
	s.IdentityProviders = sortedDocs(l.providers, func(p *IdentityProvider) string { return p.Metadata.Name })
	s.Policies = sortedDocs(l.policies, func(p *Policy) string { return p.Metadata.Name })
	for _, m := range sortedDocs(l.masks, func(m *Mask) string { return m.Metadata.Name }) {
		s.Masks = append(s.Masks, *m)
	}
	if len(l.policies) > 0 {
		compiler, err := newCompiler()
		if err != nil {
			return nil, fmt.Errorf("the expression language can't be set up: %w", err)
		}
		s.facts = compiler.facts
		for i := range l.policies {
			s.compiled = append(s.compiled, compiler.policy(l.policies[i].at, s.Policies[i], s.protocolsOf(s.Policies[i])))
		}
	}
	var err error
	s.Revision, err = s.revision()
	return s, err
}

// sortedDocs sorts the located documents too, so that both agree.
func sortedDocs[T any](docs []located[T], name func(*T) string) []*T {
	slices.SortStableFunc(docs, func(a, b located[T]) int { return strings.Compare(name(a.doc), name(b.doc)) })
	out := make([]*T, len(docs))
	for i := range docs {
		out[i] = docs[i].doc
	}
	return out
}

// revision hashes the exported fields: everything that documents say.
func (s *Set) revision() (string, error) {
	content, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("policy revision: %w", err)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:8]), nil
}

// Counts returns how many documents of each kind the set holds.
func (s *Set) Counts() map[string]int {
	return map[string]int{
		"Target": len(s.Targets), "Workload": len(s.Workloads), "IdentityProvider": len(s.IdentityProviders),
		"Policy": len(s.Policies), "Mask": len(s.Masks),
	}
}

// Protocols returns the protocols of the set's targets, sorted.
func (s *Set) Protocols() []string {
	return s.protocols(func(*Target) bool { return true })
}

// protocolsOf are those of a policy's targets. A policy whose targets aren't
// known may be for any.
func (s *Set) protocolsOf(p *Policy) []string {
	found := s.protocols(func(t *Target) bool { return p.Spec.Covers(t.Metadata.Name) })
	if len(found) == 0 {
		return protocolNames()
	}
	return found
}

func (s *Set) protocols(of func(*Target) bool) []string {
	var found []string
	for _, t := range s.Targets {
		if slices.Contains(protocolNames(), t.Spec.Protocol) && !slices.Contains(found, t.Spec.Protocol) && of(t) {
			found = append(found, t.Spec.Protocol)
		}
	}
	slices.Sort(found)
	return found
}

// Target returns the Target document of the name, or nil.
func (s *Set) Target(name string) *Target {
	i := slices.IndexFunc(s.Targets, func(t *Target) bool { return t.Metadata.Name == name })
	if i < 0 {
		return nil
	}
	return s.Targets[i]
}

// Workload returns the Workload document of the name, or nil.
func (s *Set) Workload(name string) *Workload {
	i := slices.IndexFunc(s.Workloads, func(w *Workload) bool { return w.Metadata.Name == name })
	if i < 0 {
		return nil
	}
	return s.Workloads[i]
}

// IdentityProvider returns the IdentityProvider document of the name, or nil.
func (s *Set) IdentityProvider(name string) *IdentityProvider {
	i := slices.IndexFunc(s.IdentityProviders, func(p *IdentityProvider) bool { return p.Metadata.Name == name })
	if i < 0 {
		return nil
	}
	return s.IdentityProviders[i]
}

// Covers tells whether the mask is for the target.
func (m *MaskSpec) Covers(target string) bool { return coversTarget(m.Targets, target) }

// Covers tells whether the policy is for the target.
func (p *PolicySpec) Covers(target string) bool { return coversTarget(p.Targets, target) }

func coversTarget(names []string, target string) bool {
	return target != "" && (slices.Contains(names, target) || slices.Contains(names, "*"))
}
