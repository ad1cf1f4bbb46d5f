package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/clock"
	"chaperone.dev/chaperone/internal/desk"
	"chaperone.dev/chaperone/internal/lock"
	"chaperone.dev/chaperone/internal/sink"
	"chaperone.dev/chaperone/pkg/policy"
)

type options struct {
	nats, seed, creds, ca string
	keys, dir, socket     string
	config                string
}

// run serves until ctx is done.
func run(ctx context.Context, o options) (err error) {
	log := zerolog.New(os.Stderr).With().Timestamp().Logger()
	keys, err := readKeys(o.keys)
	if err != nil {
		return err
	}
	settings, err := readSettings(o.config)
	if err != nil {
		return err
	}
	signer, err := authority.OpenSigner(o.dir)
	if err != nil {
		return err
	}
	conn, err := bus.Connect(bus.Remote{URL: o.nats, Role: bus.RoleSink, SeedFile: o.seed, CredsFile: o.creds, CAFile: o.ca,
		Changed: func(connected bool, err error) {
			log.Warn().Bool("connected", connected).Err(err).Msg("NATS connection changed")
		}})
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return fmt.Errorf("JetStream: %w", err)
	}
	s, err := sink.Open(ctx, sink.Options{Dir: o.dir, JetStream: js, Keys: keys, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	audit := newAuditor(conn, log)
	d, err := desk.Open(desk.Options{Buckets: bus.BucketsOf(js), Signer: signer, Sink: settings.Sink, Providers: settings.IdentityProviders, Audit: audit.tell, Log: log})
	if err != nil {
		return err
	}
	defer d.Close()
	// Locks that NATS loses are put back: they hold on the nodes, and are to be
	// released from here.
	locks, err := lock.Open(lock.Options{
		KV: bus.BucketsOf(js).Locks, Keys: authority.Keys{signer.Public()}, Clock: clock.New(clock.Options{}),
		Dir: filepath.Join(o.dir, "locks"), Restore: true, Log: log,
	})
	if err != nil {
		return err
	}
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return locks.Run(ctx) })
	work.Go(func() error { return s.Run(ctx) })
	work.Go(func() error { return d.Run(ctx) })
	work.Go(func() error { return audit.run(ctx) })
	work.Go(func() error {
		return s.Serve(ctx, o.socket, sink.Mount{Patterns: desk.LocalPatterns(), Handler: d.LocalHandler(uid)})
	})
	work.Go(func() error {
		return d.ServeTCP(ctx, func(at net.Addr) { log.Info().Stringer("address", at).Msg("people can log in") })
	})
	log.Info().Int("nodes", len(keys)).Str("socket", o.socket).Str("authority", base64.StdEncoding.EncodeToString(signer.Public())).Msg("the sink runs")
	return work.Wait()
}

// uid is the local user who asks.
func uid(ctx context.Context) (uint32, error) {
	peer, err := sink.PeerOf(ctx)
	return peer.UID, err
}

// readSettings reads the folder of the Sink document, which holds nothing but
// that and identity providers: what else is there would have no effect here.
func readSettings(dir string) (*policy.Set, error) {
	if dir == "" {
		return &policy.Set{}, nil
	}
	set, err := policy.Load(dir)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	switch {
	case set.Sink == nil:
		return nil, fmt.Errorf("config: %s holds no Sink document", dir)
	case set.Node.Metadata.Name != "" || len(set.Targets)+len(set.Workloads)+len(set.Policies)+len(set.Masks) > 0:
		return nil, fmt.Errorf("config: %s holds documents of a node; a sink reads Sink and IdentityProvider alone, so move them to where they have an effect", dir)
	}
	return set, nil
}

// readKeys reads a folder of <node>.pub files.
func readKeys(dir string) (map[string]ed25519.PublicKey, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.pub"))
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("keys: %s holds no <node>.pub file, so no recording could be verified", dir)
	}
	keys := map[string]ed25519.PublicKey{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
		if err != nil || len(key) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("keys: %s holds no Ed25519 public key in base64 (%d bytes)", file, ed25519.PublicKeySize)
		}
		keys[strings.TrimSuffix(filepath.Base(file), ".pub")] = key
	}
	return keys, nil
}
