package desk

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/identity"
	"chaperone.dev/chaperone/internal/outbound"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// Options of [Open].
type Options struct {
	// Buckets hold requests and votes, locks, and published documents.
	Buckets bus.Buckets
	// Signer is the authority's.
	Signer *authority.Signer
	// Keys are further public keys that the authority has had. The signer's own
	// always counts.
	Keys authority.Keys
	// Sink is the settings' document. Without one there is no page, nobody logs in,
	// and [Desk.LocalHandler] serves local users alone.
	Sink *policy.Sink
	// Providers are the IdentityProvider documents that Sink names one of.
	Providers []*policy.IdentityProvider
	// Audit, if set, is told of answers that were refused and of messages that
	// could not be delivered. It must not block.
	Audit func(event.Origin, event.Data)
	// SlackHosts are where Slack takes changes of messages (default
	// "hooks.slack.com"). Any other is refused, whatever a payload says.
	SlackHosts []string
	Log        zerolog.Logger
}

// Desk serves people. Safe for concurrent use.
type Desk struct {
	buckets  bus.Buckets
	signer   *authority.Signer
	keys     authority.Keys
	admins   policy.PrincipalSelect
	audit    func(event.Origin, event.Data)
	log      zerolog.Logger
	now      func() time.Time
	board    *board
	issuers  map[string]string // URL of each, by the document's name
	spec     policy.SinkSpec   // zero without a Sink document
	url      *url.URL          // nil without a Sink document
	login    *login            // nil without a Sink document
	sessions *sessions
	hooks    []*webhook
	slack    *slack // nil without Slack
	watchers chan struct{}
}

const maxWatchers = 256

// Open makes a desk. It reads CA files; neither NATS nor the issuer needs to
// be there yet.
func Open(o Options) (*Desk, error) {
	if o.Signer == nil {
		return nil, errors.New("desk: the authority's key is missing")
	}
	d := &Desk{
		buckets: o.Buckets, signer: o.Signer, keys: append(authority.Keys{o.Signer.Public()}, o.Keys...),
		audit: o.Audit, log: o.Log, now: time.Now, sessions: newSessions(), watchers: make(chan struct{}, maxWatchers),
	}
	if d.audit == nil {
		d.audit = func(event.Origin, event.Data) {}
	}
	d.issuers = map[string]string{}
	for _, p := range o.Providers {
		d.issuers[p.Metadata.Name] = p.Spec.Issuer
	}
	d.board = newBoard(d.keys, d.log, d.notify)
	if o.Sink == nil {
		return d, nil
	}
	if err := d.open(o); err != nil {
		return nil, fmt.Errorf("sink document %s: %w", o.Sink.Metadata.Name, err)
	}
	return d, nil
}

// open makes what a Sink document asks for.
func (d *Desk) open(o Options) (err error) {
	d.spec, d.admins = o.Sink.Spec, o.Sink.Spec.Admins
	if d.url, err = parseURL(d.spec.URL); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	at := slices.IndexFunc(o.Providers, func(p *policy.IdentityProvider) bool { return p.Metadata.Name == d.spec.Login.Issuer })
	if at < 0 {
		return fmt.Errorf("login: there is no identity provider %q", d.spec.Login.Issuer)
	}
	for _, w := range d.spec.Webhooks {
		hook, err := newWebhook(w, d.log)
		if err != nil {
			return fmt.Errorf("webhook %s: %w", w.Name, err)
		}
		d.hooks = append(d.hooks, hook)
	}
	if d.spec.Slack != nil {
		hosts := o.SlackHosts
		if len(hosts) == 0 {
			hosts = []string{"hooks.slack.com"}
		}
		if d.slack, err = newSlack(*d.spec.Slack, hosts, d); err != nil {
			return fmt.Errorf("slack: %w", err)
		}
	}
	verifier, err := identity.Open(o.Providers[at])
	if err != nil {
		return err
	}
	if d.login, err = newLogin(d.spec.Login, o.Providers[at], verifier, d.url); err != nil {
		verifier.Close()
		return fmt.Errorf("login: %w", err)
	}
	return nil
}

// parseURL reads the address that people call the sink by.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%q: want one like https://chaperone.corp.example", text)
	case u.Scheme != "https" && (u.Scheme != "http" || !outbound.Loopback(u.Hostname())):
		return nil, fmt.Errorf("%q must be https unless it is on loopback", text)
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host)}, nil
}

// Close lets go of connections to the issuer.
func (d *Desk) Close() {
	if d.login != nil {
		d.login.close()
	}
}

// Run follows requests and votes, and sends messages, until ctx is done.
// While NATS is away it shows what it knows, and says so.
func (d *Desk) Run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return d.board.follow(ctx, d.buckets.Approvals) })
	work.Go(func() error { return d.board.tick(ctx, d.now) })
	for _, h := range d.hooks {
		work.Go(func() error { return h.run(ctx, d) })
	}
	if d.slack != nil {
		work.Go(func() error { return d.slack.run(ctx) })
	}
	return work.Wait()
}

// notify passes on what happened to a request.
func (d *Desk) notify(n notice) {
	for _, h := range d.hooks {
		h.queue(n)
	}
}

// reviewURL is where a person looks at a request.
func (d *Desk) reviewURL(id string) string { return d.url.String() + "/approvals/" + id }

// originOf says what an event about a request is about.
func originOf(n *item) event.Origin {
	r := n.record.Request
	subject := r.Session
	if subject == "" {
		subject = r.Workload.Job
	}
	return event.Origin{Cluster: r.Cluster, Node: r.Node, Target: r.Target.Name, Subject: subject}
}
