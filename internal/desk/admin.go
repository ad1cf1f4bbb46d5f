package desk

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/desk/api"
	"chaperone.dev/chaperone/internal/documents"
	"chaperone.dev/chaperone/internal/lock"
	"chaperone.dev/chaperone/pkg/policy"
)

// maxLock is the longest lock.
const maxLock = 366 * 24 * time.Hour

func (c *caller) mustBeAdmin() error {
	if c.admin {
		return nil
	}
	return refuse(403, api.CodeForbidden, "Only admins may do that: those whom the Sink document names, and root on the sink's unix socket.")
}

// getLocks lists locks. Who is no admin sees those of their own name.
func (d *Desk) getLocks(w http.ResponseWriter, r *http.Request, c *caller) error {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	kv, err := d.buckets.Locks.KV(ctx)
	if err != nil {
		return err
	}
	entries, err := lock.All(ctx, kv, d.keys)
	if err != nil {
		return err
	}
	if !c.admin {
		entries = slices.DeleteFunc(entries, func(e lock.Entry) bool { return e.Lock.Principal != c.person.String() })
	}
	return writeJSON(w, entries)
}

func (d *Desk) postLock(w http.ResponseWriter, r *http.Request, c *caller) error {
	if err := c.mustBeAdmin(); err != nil {
		return err
	}
	var q api.LockRequest
	if err := readJSON(w, r, api.MaxBody, &q); err != nil {
		return err
	}
	if life := time.Duration(q.For); life <= 0 || life > maxLock {
		return refuse(400, api.CodeBadRequest, "for: say how long the lock holds, at most %s.", maxLock)
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	kv, err := d.buckets.Locks.KV(ctx)
	if err != nil {
		return err
	}
	now := d.now().UTC()
	e, err := lock.Put(ctx, kv, d.signer, lock.Lock{
		Principal: q.Principal, Workload: q.Workload, Target: q.Target, Session: q.Session, Reason: q.Reason,
		By: c.person, Created: now, Expires: now.Add(time.Duration(q.For)),
	})
	if errors.Is(err, lock.ErrInvalid) {
		return refuse(400, api.CodeBadRequest, "%v.", err)
	}
	if err != nil {
		return err
	}
	d.log.Warn().Str("lock", e.Lock.ID).Str("by", c.person.String()).Msg("locked")
	return writeJSON(w, e)
}

func (d *Desk) deleteLock(w http.ResponseWriter, r *http.Request, c *caller) error {
	if err := c.mustBeAdmin(); err != nil {
		return err
	}
	var q api.UnlockRequest
	if r.ContentLength != 0 {
		if err := readJSON(w, r, api.MaxBody, &q); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	kv, err := d.buckets.Locks.KV(ctx)
	if err != nil {
		return err
	}
	e, err := lock.Release(ctx, kv, d.signer, d.keys, r.PathValue("id"), c.person, q.Reason, d.now().UTC())
	switch {
	case errors.Is(err, lock.ErrNotFound):
		return refuse(404, api.CodeNotFound, "There is no such lock.")
	case errors.Is(err, lock.ErrOver):
		return refuse(409, api.CodeConflict, "The lock is over already.")
	case errors.Is(err, lock.ErrInvalid):
		return refuse(400, api.CodeBadRequest, "%v.", err)
	case err != nil:
		return err
	}
	d.log.Warn().Str("lock", e.Lock.ID).Str("by", c.person.String()).Msg("unlocked")
	return writeJSON(w, e)
}

func (d *Desk) putDocuments(w http.ResponseWriter, r *http.Request, c *caller) error {
	if err := c.mustBeAdmin(); err != nil {
		return err
	}
	var q api.PublishRequest
	if err := readJSON(w, r, api.MaxPublish, &q); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	kv, err := d.buckets.Documents.KV(ctx)
	if err != nil {
		return err
	}
	b, revision, err := documents.Publish(ctx, kv, d.signer, d.keys, q.Files, c.person)
	if errors.Is(err, documents.ErrRefused) {
		return refuse(400, api.CodeBadRequest, "%s", problems(err))
	}
	if err != nil {
		return err
	}
	d.log.Warn().Uint64("serial", b.Serial).Str("revision", revision).Str("by", c.person.String()).Msg("documents published")
	return writeJSON(w, api.Published{Serial: b.Serial, Revision: revision})
}

// problems lists what is wrong with documents, one per line.
func problems(err error) string {
	lines := policy.Messages(err)
	if len(lines) == 0 {
		return err.Error()
	}
	return strings.Join(lines, "\n")
}

func (d *Desk) getDocuments(w http.ResponseWriter, r *http.Request, c *caller) error {
	if err := c.mustBeAdmin(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	kv, err := d.buckets.Documents.KV(ctx)
	if err != nil {
		return err
	}
	b, err := documents.Read(ctx, kv, d.keys)
	if errors.Is(err, documents.ErrNone) {
		return refuse(404, api.CodeNotFound, "No documents are published.")
	}
	if err != nil {
		return err
	}
	contents := map[string][]byte{}
	for name, text := range b.Files {
		contents[name] = []byte(text)
	}
	published := api.Published{Serial: b.Serial, Files: b.Files, By: b.By, At: b.At}
	// An earlier release may have published what this one doesn't read.
	if set, err := policy.LoadFiles(contents); err == nil {
		published.Revision = set.Revision
	}
	return writeJSON(w, published)
}
