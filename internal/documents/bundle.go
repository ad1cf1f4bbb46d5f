package documents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/pkg/policy"
)

// Signed is the kind of signature that a [Bundle] carries.
const Signed = "documents"

// Bucket is the JetStream key-value bucket of the published bundle. Its key
// [Key] holds JSON of authority.Signed over a [Bundle].
const (
	Bucket = "CHAPERONE_DOCUMENTS"
	Key    = "bundle"
)

// MaxSize bounds a signed bundle, in bytes as it is stored: NATS takes messages
// of a mebibyte unless it was told otherwise.
const MaxSize = 900 << 10

// Errors of this package.
var (
	// ErrRefused is wrapped by what is wrong with documents that somebody wants to publish.
	ErrRefused = errors.New("these documents can't be published")
	// ErrNone: nothing is published.
	ErrNone = errors.New("no documents are published")
	// ErrReplayed: a bundle is older than the one that was taken before it.
	ErrReplayed = errors.New("an older bundle was put back")
)

// Bundle is what was published: documents, by the names of their files.
type Bundle struct {
	// Serial only ever grows.
	Serial uint64            `json:"serial"`
	Files  map[string]string `json:"files"`
	By     approval.Person   `json:"by"`
	At     time.Time         `json:"at"`
}

// Publish signs the files and puts them in the place of those that were
// published before. It returns the bundle and the revision of its documents by
// themselves; that of a node is another, as it has documents of its own.
//
// The files must load without any others, and hold no Node or Sink document. What
// is wrong with them wraps [ErrRefused]; [policy.Messages] lists it.
func Publish(ctx context.Context, kv jetstream.KeyValue, signer *authority.Signer, keys authority.Keys, files map[string]string, by approval.Person) (Bundle, string, error) {
	set, err := check(files)
	if err != nil {
		return Bundle{}, "", fmt.Errorf("%w:\n%w", ErrRefused, err)
	}
	for range maxAttempts {
		b := Bundle{Files: files, By: by, At: time.Now().UTC().Truncate(time.Millisecond)}
		before, err := latest(ctx, kv, keys)
		if err != nil {
			return Bundle{}, "", err
		}
		// Beyond what any node may have taken, whatever somebody did to the bucket
		// since: one that was emptied, or holds an old bundle again, doesn't begin anew.
		b.Serial = max(before.serial+1, uint64(b.At.UnixMilli()))
		value, err := b.sign(signer)
		if err != nil {
			return Bundle{}, "", err
		}
		if before.revision == 0 {
			_, err = kv.Create(ctx, Key, value)
		} else {
			_, err = kv.Update(ctx, Key, value, before.revision)
		}
		if err == nil {
			return b, set.Revision, nil
		}
		if !errors.Is(err, jetstream.ErrKeyExists) && !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			return Bundle{}, "", fmt.Errorf("publishing documents: %w", err)
		}
	}
	return Bundle{}, "", errors.New("publishing documents: others publish at the same time, again and again; try again")
}

// maxAttempts bounds how often others may be first.
const maxAttempts = 10

// Read returns the bundle that is published, or an error that wraps [ErrNone], or one that
// wraps [authority.ErrSignature] where what is there counts for nothing.
func Read(ctx context.Context, kv jetstream.KeyValue, keys authority.Keys) (Bundle, error) {
	e, err := kv.Get(ctx, Key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return Bundle{}, ErrNone
	}
	if err != nil {
		return Bundle{}, fmt.Errorf("published documents: %w", err)
	}
	return open(e.Value(), keys)
}

// published is what a new bundle takes the place of.
type published struct {
	revision uint64 // of the key; 0: it is not there
	serial   uint64 // of the bundle; 0: there is none that counts
}

func latest(ctx context.Context, kv jetstream.KeyValue, keys authority.Keys) (published, error) {
	e, err := kv.Get(ctx, Key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return published{}, nil
	}
	if err != nil {
		return published{}, fmt.Errorf("published documents: %w", err)
	}
	at := published{revision: e.Revision()}
	if b, err := open(e.Value(), keys); err == nil {
		at.serial = b.Serial
	}
	return at, nil
}

// sign makes the bucket's value of the bundle.
func (b *Bundle) sign(signer *authority.Signer) ([]byte, error) {
	signed, err := signer.Sign(Signed, b)
	if err != nil {
		return nil, err
	}
	value, err := json.Marshal(signed)
	if err != nil {
		return nil, fmt.Errorf("publishing documents: %w", err)
	}
	if len(value) > MaxSize {
		return nil, fmt.Errorf("%w: they take %d KiB as they are stored, and may take %d; take some of them out, or put those that only some nodes need into those nodes' folders",
			ErrRefused, (len(value)+1023)>>10, MaxSize>>10)
	}
	return value, nil
}

// open verifies and reads a bucket's value. Its bundle's files may be wrong still.
func open(value []byte, keys authority.Keys) (Bundle, error) {
	var signed authority.Signed
	if len(value) > MaxSize {
		return Bundle{}, fmt.Errorf("published documents: %d bytes, the limit is %d", len(value), MaxSize)
	}
	if err := json.Unmarshal(value, &signed); err != nil {
		return Bundle{}, fmt.Errorf("published documents can't be read: %w", err)
	}
	var b Bundle
	if err := keys.Verify(Signed, signed, &b); err != nil {
		return Bundle{}, fmt.Errorf("published documents: %w", err)
	}
	return b, nil
}

// kinds are those that may be published.
var kinds = []string{"Target", "Workload", "IdentityProvider", "Policy", "Mask"}

// check refuses files that nodes would.
func check(files map[string]string) (*policy.Set, error) {
	contents := map[string][]byte{}
	for name, text := range files {
		contents[name] = []byte(text)
	}
	if err := allowed(contents); err != nil {
		return nil, err
	}
	return policy.LoadFiles(contents)
}

// allowed refuses names and kinds that can't be published.
func allowed(files map[string][]byte) error {
	var errs policy.Errors
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if message := badName(name); message != "" {
			errs = append(errs, &policy.DocumentError{File: name, Message: message})
			continue
		}
		errs = append(errs, badKinds(name, files[name])...)
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

// badName says what is wrong with a file's name, or nothing.
func badName(name string) string {
	switch {
	case len(name) > 200 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '/' || r == '\\' || r >= 0x7f }):
		return "this is no file's name: at most 200 letters, digits and signs, without a folder"
	case !isYAML(name) || strings.HasPrefix(name, "."):
		return "documents are in files called *.yaml or *.yml"
	case isTest(name):
		return "these are test cases, and no documents"
	}
	return ""
}

// badKinds finds documents of kinds that can't be published. What else is wrong
// is told by who loads them.
func badKinds(name string, data []byte) policy.Errors {
	var errs policy.Errors
	found, err := policy.KindsOf(name, data)
	if err != nil {
		return nil
	}
	for i, kind := range found {
		if !slices.Contains(kinds, kind) {
			errs = append(errs, &policy.DocumentError{File: name, Field: "kind", Message: fmt.Sprintf(
				"document %d of the file is a %.40q; only %s can be published, for a node's and a sink's own settings stay in their folders",
				i+1, kind, strings.Join(kinds, ", "))})
		}
	}
	return errs
}
