package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/clock"
	"chaperone.dev/chaperone/internal/identity"
	"chaperone.dev/chaperone/internal/workload"
	"chaperone.dev/chaperone/pkg/policy"
)

// play is a prover whose jobs, tokens, documents and time the test has in its hands.
type play struct {
	*renewals
	t     *testing.T
	start time.Time

	mu      sync.Mutex
	wall    time.Time
	elapsed time.Duration
	known   map[uint64]workload.Job
	token   func() (policy.Principal, error) // what the job's token proves now
	proof   string                           // what the documents want
	gone    error                            // the documents' fault
	asked   int
	ends    []string
	bad     []string
	renewed int
}

func newPlay(t *testing.T) *play {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p := &play{t: t, start: start, wall: start, proof: "documents 1", known: map[uint64]workload.Job{}}
	prover := &prover{
		proofs: &proofs{}, jobs: p,
		clock: clock.New(clock.Options{Source: func() (time.Time, time.Duration) {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.wall, p.elapsed
		}}),
		demand: func(workload.Job) (demand, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			return demand{proof: p.proof, prove: p.prove}, p.gone
		},
		renewed: func(workload.Job) { p.mu.Lock(); p.renewed++; p.mu.Unlock() },
		ended: func(_ context.Context, job workload.Job, why string) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.ends = append(p.ends, job.Principal.Subject+": "+why)
		},
		suspicious: func(_ workload.Job, err error) { p.mu.Lock(); p.bad = append(p.bad, err.Error()); p.mu.Unlock() },
		unkept:     func(_ workload.Job, err error) { t.Error(err) },
	}
	p.renewals = &renewals{prover: prover, known: map[string]*renewal{}, slots: make(chan struct{}, renewAtOnce)}
	return p
}

func (p *play) prove(context.Context) (policy.Principal, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	return p.token()
}

func (p *play) Jobs() []workload.Job {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []workload.Job
	for _, job := range p.known {
		all = append(all, job)
	}
	return all
}

func (p *play) ByCgroup(id uint64) (workload.Job, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	job, ok := p.known[id]
	return job, ok
}

func (p *play) Identify(job workload.Job, principal policy.Principal, proof string) (workload.Job, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	job.Principal, job.Proof = principal, proof
	job.Proofs++
	p.known[job.CgroupID] = job
	return job, nil
}

// good is what a token proves that was issued now for ten minutes.
func (p *play) good(subject string) policy.Principal {
	return policy.Principal{
		Subject: subject, Issuer: "corp-idp", Expires: p.wall.Add(10 * time.Minute),
		Claims: map[string]any{"iat": float64(p.wall.Unix())},
	}
}

// has gives the token something to prove.
func (p *play) has(principal policy.Principal, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = func() (policy.Principal, error) { return principal, err }
}

// begin has job 1 of planner-7 begin with a token of ten minutes.
func (p *play) begin() workload.Job {
	p.t.Helper()
	p.known[1] = workload.Job{ID: "nightly-1", CgroupID: 1}
	p.has(p.good("planner-7"), nil)
	return p.must()
}

// must proves whom the job acts for, as a connection does.
func (p *play) must() workload.Job {
	p.t.Helper()
	job, err := p.current(p.t.Context(), p.job())
	if err != nil {
		p.t.Fatal(err)
	}
	return job
}

func (p *play) job() workload.Job {
	job, _ := p.ByCgroup(1)
	return job
}

// pass lets so much time pass, and what is to be done then be done.
func (p *play) pass(d time.Duration) {
	p.t.Helper()
	p.mu.Lock()
	p.wall, p.elapsed = p.wall.Add(d), p.elapsed+d
	p.mu.Unlock()
	p.settle()
}

func (p *play) settle() {
	p.t.Helper()
	p.look(p.t.Context())
	p.working.Wait()
}

func (p *play) want(what string, got, want int) {
	p.t.Helper()
	if got != want {
		p.t.Fatalf("%d %s, want %d; ended %q, told of %q", got, what, want, p.ends, p.bad)
	}
}

func TestPrincipalIsRenewedBeforeItExpires(t *testing.T) {
	p := newPlay(t)
	p.begin()
	p.pass(7 * time.Minute)
	p.want("proofs, with a fifth of its life left and more", p.asked, 1)
	// The token is the same yet at four fifths of its life: nothing to tell, and no rush.
	p.pass(time.Minute)
	p.settle()
	p.want("proofs", p.asked, 2)
	// A newer one is found within seconds.
	p.has(p.good("planner-7"), nil)
	p.pass(6 * time.Second)
	p.want("proofs", p.asked, 3)
	p.want("renewals", p.renewed, 2)
	if got, want := p.job().Principal.Expires, p.start.Add(18*time.Minute); !got.Equal(want) {
		t.Errorf("it expires at %v, want %v", got, want)
	}
	p.pass(4 * time.Minute) // past the end of the first one
	p.must()
	p.want("ends", len(p.ends), 0)
	p.want("complaints", len(p.bad), 0)
}

func TestPrincipalThatIsNotRenewedEnds(t *testing.T) {
	p := newPlay(t)
	p.begin()
	p.pass(9 * time.Minute)
	p.pass(time.Minute)
	p.settle()
	p.want("ends", len(p.ends), 1)
	if !strings.Contains(p.ends[0], "expired at 2026-03-01T12:10:00Z and was not renewed: its token is not renewed yet") {
		t.Error(p.ends[0])
	}
	// The job stays, and a later token makes it work again.
	p.has(policy.Principal{}, fmt.Errorf("%w: it expired", identity.ErrToken))
	if _, err := p.current(t.Context(), p.job()); !errors.Is(err, identity.ErrToken) {
		t.Errorf("with an expired token: %v", err)
	}
	p.has(p.good("planner-7"), nil)
	if job := p.must(); job.ID != "nightly-1" || !job.Principal.Expires.Equal(p.wall.Add(10*time.Minute)) {
		t.Errorf("%+v", job)
	}
	p.pass(11 * time.Minute)
	p.want("ends", len(p.ends), 2)
}

func TestRenewalByAnotherSubjectIsRefused(t *testing.T) {
	for name, change := range map[string]func(*policy.Principal){
		"subject": func(p *policy.Principal) { p.Subject = "root" },
		"issuer":  func(p *policy.Principal) { p.Issuer = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlay(t)
			p.begin()
			p.pass(8 * time.Minute)
			other := p.good("planner-7")
			change(&other)
			p.has(other, nil)
			p.pass(10 * time.Second)
			p.pass(10 * time.Second)
			p.want("complaints, of two attempts", len(p.bad), 1)
			if !strings.Contains(p.bad[0], "planner-7@corp-idp") || !strings.Contains(p.bad[0], other.Subject+"@"+other.Issuer) {
				t.Error(p.bad[0])
			}
			if job := p.must(); job.Principal.Subject != "planner-7" || job.Principal.Issuer != "corp-idp" {
				t.Errorf("acts for %+v", job.Principal)
			}
			p.pass(2 * time.Minute) // the old one lives until its own end
			p.want("ends", len(p.ends), 1)
			if _, err := p.current(t.Context(), p.job()); !errors.Is(err, errAnother) {
				t.Errorf("after it expired: %v", err)
			}
		})
	}
}

func TestForgedRenewalIsToldOnce(t *testing.T) {
	p := newPlay(t)
	p.begin()
	p.has(policy.Principal{}, fmt.Errorf("%w: none of the issuer's keys made its signature", identity.ErrToken))
	p.pass(8 * time.Minute)
	p.pass(30 * time.Second)
	p.want("proofs", p.asked, 3)
	p.want("complaints", len(p.bad), 1)
	p.must()
}

func TestOlderTokenTakesNothingAway(t *testing.T) {
	p := newPlay(t)
	job := p.begin()
	older := p.good("planner-7")
	older.Expires = older.Expires.Add(-time.Minute)
	p.has(older, nil)
	p.pass(8 * time.Minute)
	if !p.job().Principal.Expires.Equal(job.Principal.Expires) {
		t.Errorf("expires at %v now", p.job().Principal.Expires)
	}
}

// A clock that is set back prolongs nothing.
func TestClockThatIsSetBackProlongsNothing(t *testing.T) {
	p := newPlay(t)
	p.begin()
	p.mu.Lock()
	p.wall = p.wall.Add(-24 * time.Hour)
	p.mu.Unlock()
	p.has(policy.Principal{}, identity.ErrToken)
	p.pass(10 * time.Minute)
	p.want("ends", len(p.ends), 1)
	if _, err := p.current(t.Context(), p.job()); err == nil {
		t.Error("it acts for somebody yet")
	}
}

func TestChangedDocumentsWantAnotherProof(t *testing.T) {
	t.Run("which there is", func(t *testing.T) {
		p := newPlay(t)
		p.begin()
		p.proof = "documents 2"
		p.settle()
		p.want("proofs", p.asked, 2)
		p.want("ends", len(p.ends), 0)
		if p.must(); p.job().Proof != "documents 2" {
			t.Errorf("proved by %q", p.job().Proof)
		}
	})
	t.Run("which there is not", func(t *testing.T) {
		p := newPlay(t)
		p.begin()
		p.proof = "documents 2"
		p.has(policy.Principal{}, fmt.Errorf("%w: it is for audience a", identity.ErrToken))
		p.settle()
		p.settle()
		p.want("ends", len(p.ends), 1)
		if !strings.Contains(p.ends[0], "documents in force now") || !strings.Contains(p.ends[0], "audience a") {
			t.Error(p.ends[0])
		}
		if _, err := p.current(t.Context(), p.job()); !errors.Is(err, identity.ErrToken) {
			t.Errorf("a new connection: %v", err)
		}
		p.has(p.good("planner-7"), nil)
		p.must()
	})
	t.Run("by an issuer that is down", func(t *testing.T) {
		p := newPlay(t)
		p.begin()
		p.proof = "documents 2"
		p.has(policy.Principal{}, identity.ErrUnavailable)
		p.settle()
		p.want("ends", len(p.ends), 1)
	})
	t.Run("which is another principal's", func(t *testing.T) {
		p := newPlay(t)
		p.begin()
		p.proof = "documents 2"
		p.has(p.good("planner-7@corp.example"), nil)
		p.settle()
		p.want("ends of what the former one had", len(p.ends), 1)
		if job := p.must(); job.Principal.Subject != "planner-7@corp.example" {
			t.Errorf("acts for %+v", job.Principal)
		}
	})
	t.Run("that nobody can give any more", func(t *testing.T) {
		p := newPlay(t)
		p.begin()
		p.gone = errors.New(`no IdentityProvider document is named "corp-idp"`)
		p.settle()
		p.settle()
		p.want("ends", len(p.ends), 1)
		if _, err := p.current(t.Context(), p.job()); err == nil || !strings.Contains(err.Error(), "corp-idp") {
			t.Errorf("a new connection: %v", err)
		}
	})
	t.Run("of whom the node vouched for", func(t *testing.T) {
		p := newPlay(t)
		p.known[1] = workload.Job{ID: "nightly-1", CgroupID: 1, Principal: policy.Principal{Subject: "ada", Issuer: policy.LocalIssuer}}
		p.has(p.good("planner-7"), nil)
		p.settle()
		p.want("ends", len(p.ends), 1)
		if job := p.must(); job.Principal.Issuer != "corp-idp" {
			t.Errorf("acts for %+v", job.Principal)
		}
	})
}

func TestNothingIsDoneForWhatNeverExpires(t *testing.T) {
	p := newPlay(t)
	p.proof = ""
	p.known[1] = workload.Job{ID: "nightly-1", CgroupID: 1, Principal: policy.Principal{Subject: "ada", Issuer: policy.LocalIssuer}}
	p.known[2] = workload.Job{ID: "unproved", CgroupID: 2}
	p.pass(1000 * time.Hour)
	p.must()
	p.want("proofs", p.asked, 0)
	p.want("ends", len(p.ends), 0)
	delete(p.known, 1)
	p.settle()
	p.want("jobs remembered", len(p.renewals.known), 0)
}

// All who connect at once wait for one proof.
func TestOneProofForAllWhoAsk(t *testing.T) {
	p := newPlay(t)
	p.known[1] = workload.Job{ID: "nightly-1", CgroupID: 1}
	p.has(p.good("planner-7"), nil)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if job, err := p.current(t.Context(), workload.Job{ID: "nightly-1", CgroupID: 1}); err != nil || job.Principal.Subject != "planner-7" {
				t.Errorf("%+v, %v", job, err)
			}
		})
	}
	all.Wait()
	p.want("proofs", p.asked, 1)
	// And no longer than their callers want to.
	end, err := p.proofs.begin(t.Context(), "nightly-1")
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.mu.Lock()
	p.proof = "documents 2"
	p.mu.Unlock()
	if _, err := p.current(ctx, p.job()); !errors.Is(err, context.Canceled) {
		t.Errorf("waited on: %v", err)
	}
}

func TestProofOfAJobThatIsGone(t *testing.T) {
	p := newPlay(t)
	if _, err := p.current(t.Context(), workload.Job{ID: "nightly-1", CgroupID: 1}); !errors.Is(err, workload.ErrGone) {
		t.Errorf("got %v", err)
	}
}

func TestRenewAt(t *testing.T) {
	at := func(minutes int) time.Time { return time.Unix(0, 0).Add(time.Duration(minutes) * time.Minute) }
	claim := func(minutes int) float64 { return float64(at(minutes).Unix()) }
	for name, test := range map[string]struct {
		expires, seen int
		claims        map[string]any
		want          int
	}{
		"issued":             {110, 50, map[string]any{"iat": claim(10)}, 90},
		"without the skew":   {120, 50, map[string]any{"iat": claim(10), "exp": claim(110)}, 90},
		"not told":           {110, 60, nil, 100},
		"told as text":       {110, 60, map[string]any{"iat": "10"}, 100},
		"issued after it":    {110, 60, map[string]any{"iat": claim(200)}, 110},
		"seen after its end": {110, 200, nil, 110},
	} {
		got := renewAt(policy.Principal{Expires: at(test.expires), Claims: test.claims}, at(test.seen))
		if !got.Equal(at(test.want)) {
			t.Errorf("%s: minute %v, want %d", name, got.Sub(at(0)).Minutes(), test.want)
		}
	}
}

// What is asked for by a document: the same for the same text, and another one for what
// matters.
func TestProofs(t *testing.T) {
	base := policy.IdentityProvider{Metadata: policy.Metadata{Name: "corp-idp"},
		Spec: policy.IdentityProviderSpec{Issuer: "https://idp.example", Audiences: []string{"chaperone"}}}
	spec := policy.IdentitySpec{Issuer: "corp-idp", TokenFile: "/run/token"}
	first := (&provider{document: base}).proof(spec)
	for name, test := range map[string]struct {
		provider func(*provider)
		spec     func(*policy.IdentitySpec)
		same     bool
	}{
		"nothing":      {same: true},
		"bearer token": {provider: func(p *provider) { p.document.Spec.BearerTokenFile = "/x" }, same: true},
		"token file":   {spec: func(s *policy.IdentitySpec) { s.TokenFile = "/other" }, same: true},
		"issuer":       {provider: func(p *provider) { p.document.Spec.Issuer = "https://other.example" }},
		"audiences":    {provider: func(p *provider) { p.document.Spec.Audiences = []string{"a"} }},
		"subject":      {provider: func(p *provider) { p.document.Spec.Claims.Subject = "email" }},
		"groups":       {provider: func(p *provider) { p.document.Spec.Claims.Groups = "roles" }},
		"CA file":      {provider: func(p *provider) { p.document.Spec.CAFile = "/ca.pem" }},
		"CA":           {provider: func(p *provider) { p.ca[0] = 1 }},
		"name":         {provider: func(p *provider) { p.document.Metadata.Name = "other" }},
		"audience":     {spec: func(s *policy.IdentitySpec) { s.Audience = "a" }},
		"account": {spec: func(s *policy.IdentitySpec) {
			s.ClientCredentials = &policy.ClientCredentialsSpec{ClientID: "nightly"}
		}},
	} {
		p, s := &provider{document: base}, spec
		p.document.Spec.Audiences = slices.Clone(base.Spec.Audiences)
		if test.provider != nil {
			test.provider(p)
		}
		if test.spec != nil {
			test.spec(&s)
		}
		if got := p.proof(s); (got == first) != test.same {
			t.Errorf("%s changed: the proof is the same: %v", name, got == first)
		}
	}
}

// A reload keeps verifiers, and with them issuers' keys, unless their documents changed.
func TestReloadKeepsVerifiers(t *testing.T) {
	set := func(issuer string) *policy.Set {
		return &policy.Set{IdentityProviders: []*policy.IdentityProvider{
			{Metadata: policy.Metadata{Name: "a"}, Spec: policy.IdentityProviderSpec{Issuer: issuer, Audiences: []string{"x"}}},
		}}
	}
	var i identities
	at := clock.New(clock.Options{})
	of := func(set *policy.Set) *provider {
		t.Helper()
		p, err := i.of(set, "a", at)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := of(set("https://a.example"))
	if of(set("https://a.example")) != first {
		t.Error("a document that did not change has another verifier")
	}
	if of(set("https://b.example")) == first {
		t.Error("a document that changed has the same verifier")
	}
	if _, err := i.of(&policy.Set{}, "a", at); err == nil {
		t.Error("a document that is gone has a verifier")
	}
}
