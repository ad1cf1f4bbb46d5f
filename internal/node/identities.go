package node

import (
	"fmt"
	"sync"

	"chaperone.dev/chaperone/internal/identity"
	"chaperone.dev/chaperone/pkg/policy"
)

// identities keeps one verifier per provider of the documents in force, so
// that an issuer's keys are fetched once and not for each job.
type identities struct {
	mu    sync.Mutex
	set   *policy.Set
	known map[string]*identity.Verifier
}

func (i *identities) verifier(set *policy.Set, name string) (*identity.Verifier, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.set != set {
		i.set, i.known = set, map[string]*identity.Verifier{}
	}
	if known, ok := i.known[name]; ok {
		return known, nil
	}
	provider := set.IdentityProvider(name)
	if provider == nil {
		return nil, fmt.Errorf("no IdentityProvider document is named %q", name)
	}
	verifier, err := identity.Open(provider)
	if err != nil {
		return nil, err
	}
	i.known[name] = verifier
	return verifier, nil
}
