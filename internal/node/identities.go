package node

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sync"

	"chaperone.dev/chaperone/internal/clock"
	"chaperone.dev/chaperone/internal/identity"
	"chaperone.dev/chaperone/internal/tokenfile"
	"chaperone.dev/chaperone/pkg/policy"
)

// identities knows how the documents in force want jobs to prove who they act for. It
// keeps one verifier per provider, over reloads that don't change it, so that an issuer
// that is down at a reload takes nothing away.
type identities struct {
	files  tokenfile.Reader
	proofs proofs

	mu    sync.Mutex
	set   *policy.Set
	known map[string]*provider
}

// provider is an IdentityProvider document in use.
type provider struct {
	document policy.IdentityProvider
	ca       [sha256.Size]byte // of the file's content: it is a part of what was proved by
	verifier *identity.Verifier

	mu       sync.Mutex
	accounts map[string]*identity.ServiceAccount
}

// of returns a provider of the set.
func (i *identities) of(set *policy.Set, name string, at *clock.Clock) (*provider, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.set != set {
		i.known, i.set = i.stillGood(set), set
	}
	if known, ok := i.known[name]; ok {
		return known, nil
	}
	document := set.IdentityProvider(name)
	if document == nil {
		return nil, fmt.Errorf("no IdentityProvider document is named %q", name)
	}
	ca, err := sumOf(document.Spec.CAFile)
	if err != nil {
		return nil, fmt.Errorf("identity provider %s: caFile: %w", name, err)
	}
	verifier, err := identity.OpenAt(document, at)
	if err != nil {
		return nil, err
	}
	opened := &provider{document: *document, ca: ca, verifier: verifier, accounts: map[string]*identity.ServiceAccount{}}
	i.known[name] = opened
	return opened, nil
}

// stillGood are the known providers that the set has unchanged.
func (i *identities) stillGood(set *policy.Set) map[string]*provider {
	good := map[string]*provider{}
	for name, p := range i.known {
		document := set.IdentityProvider(name)
		if document != nil && reflect.DeepEqual(document.Spec, p.document.Spec) {
			if ca, err := sumOf(document.Spec.CAFile); err != nil || ca == p.ca { // one that can't be read is not another one
				good[name] = p
				continue
			}
		}
		p.verifier.Close()
	}
	return good
}

func sumOf(file string) (sum [sha256.Size]byte, err error) {
	if file == "" {
		return sum, nil
	}
	content, err := os.ReadFile(file)
	return sha256.Sum256(content), err
}

// proof names what a principal was proved by: another provider, audience, mapping of
// claims or authority is another proof. How the issuer is asked for its keys, and where the
// token comes from, are no part of it.
func (p *provider) proof(spec policy.IdentitySpec) string {
	document := p.document.Spec
	document.BearerTokenFile = ""
	spec.TokenFile = ""
	content, err := json.Marshal([]any{p.document.Metadata.Name, document, p.ca, spec})
	if err != nil { // documents were read from text
		panic(err)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:16])
}

// account is the service account that a Workload document names.
func (p *provider) account(spec policy.ClientCredentialsSpec) *identity.ServiceAccount {
	p.mu.Lock()
	defer p.mu.Unlock()
	content, err := json.Marshal(spec)
	if err != nil {
		panic(err)
	}
	known, ok := p.accounts[string(content)]
	if !ok {
		known = p.verifier.ServiceAccount(spec)
		p.accounts[string(content)] = known
	}
	return known
}
