package lock

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"chaperone.dev/chaperone/internal/authority"
	"github.com/nats-io/nats.go/jetstream"
)

// restore writes to the bucket what is missing there, or can't be verified.
func (k *Keeper) restore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	kv, err := k.opts.KV.KV(ctx)
	k.mu.Lock()
	all := make(map[string]kept, len(k.kept))
	for id, e := range k.kept {
		all[id] = *e
	}
	k.mu.Unlock()
	for id, e := range all {
		if err != nil {
			break
		}
		err = e.restore(ctx, kv, k.opts.Keys, id)
	}
	if err != nil {
		k.opts.Log.Warn().Err(err).Msg("locks that the bucket has lost are not there again yet")
	}
}

// tidy takes out of the bucket what is over for long.
func (k *Keeper) tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	kv, err := k.opts.KV.KV(ctx)
	var all []Entry
	if err == nil {
		all, err = All(ctx, kv, k.opts.Keys)
	}
	for _, e := range all {
		if err != nil {
			break
		}
		_, err = Remove(ctx, kv, e, k.opts.Keep, k.opts.Clock.Earliest())
	}
	if err != nil {
		k.opts.Log.Warn().Err(err).Msg("locks that ended long ago are not taken out of the bucket yet")
	}
}

func (e kept) restore(ctx context.Context, kv jetstream.KeyValue, keys authority.Keys, id string) error {
	value, err := json.Marshal(e.signed)
	if err != nil {
		return err
	}
	there, err := kv.Get(ctx, id)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		_, err = kv.Create(ctx, id, value)
	case err != nil:
		return err
	default:
		have, bad := Decode(keys, id, there.Value())
		if bad == nil && (have.Released != nil || e.entry.Released == nil) {
			return nil
		}
		_, err = kv.Update(ctx, id, value, there.Revision())
	}
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return nil // somebody else is at it
	}
	return err
}
