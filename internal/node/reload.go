package node

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// reloadDocuments has the documents read again when that is asked for. Changes of
// files, and of what is published, are seen without.
func (n *node) reloadDocuments(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.opts.Reload:
			n.source.Reload()
		}
	}
}

// documentsChanged puts a set in force, or says why it can't be.
func (n *node) documentsChanged(ctx context.Context, set *policy.Set, origin string) error {
	if !reflect.DeepEqual(set.Node.Spec, n.spec) {
		return errors.New("the Node document was changed, which takes a restart")
	}
	if err := checkServed(set); err != nil {
		return err
	}
	if err := n.enforce(ctx, set); err != nil {
		return errors.Join(err, n.enforce(ctx, n.documents.Load()))
	}
	n.documents.Store(set)
	n.discovery.lookAgain()
	n.log.Info().Str("revision", set.Revision).Str("origin", origin).Msg("documents in force")
	n.publish("", "", event.PolicyLoaded{Revision: set.Revision, Documents: set.Counts()})
	return nil
}

// documentsRejected tells of documents that are not in force.
func (n *node) documentsRejected(err error, kept string) {
	n.log.Error().Err(err).Str("kept", kept).Msg("documents refused; the last good ones stay in force")
	n.publish("", "", event.PolicyRejected{Kept: kept, Errors: policy.Messages(err)})
}

// checkServed refuses what the policy language can say and this daemon can't do:
// nobody is to rely on a target that it doesn't protect.
func checkServed(set *policy.Set) error {
	for _, t := range set.Targets {
		if t.Spec.Protocol != policy.ProtocolPostgres {
			return fmt.Errorf("target %q: this release doesn't serve protocol %q; remove the target from the node's documents",
				t.Metadata.Name, t.Spec.Protocol)
		}
	}
	return nil
}
