package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/sink"
)

type options struct {
	nats, seed, creds, ca string
	keys, dir, socket     string
}

// run serves until ctx is done.
func run(ctx context.Context, o options) (err error) {
	log := zerolog.New(os.Stderr).With().Timestamp().Logger()
	keys, err := readKeys(o.keys)
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
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return s.Run(ctx) })
	work.Go(func() error { return s.Serve(ctx, o.socket) })
	log.Info().Int("nodes", len(keys)).Str("socket", o.socket).Msg("the sink runs")
	return work.Wait()
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
