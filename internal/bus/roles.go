package bus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"chaperone.dev/chaperone/pkg/event"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// Role is a kind of client.
type Role string

// The roles. The embedded server keeps the keys of the first three on disk;
// RoleAdmin, which makes the streams, has one for the moment that it takes.
const (
	RoleNode    Role = "node"
	RoleSink    Role = "sink"
	RoleAuditor Role = "auditor"
	RoleAdmin   Role = "admin"
)

// inbox is the prefix of a role's reply subjects, so that no role can listen
// to what another is told.
func inbox(r Role) string { return "_INBOX_" + string(r) }

// permissions of a role. Everything that is not allowed is denied.
func permissions(r Role, cluster, node string) *server.Permissions {
	own := []string{inbox(r) + ".>"}
	none := &server.SubjectPermission{Deny: []string{">"}}
	switch r {
	case RoleNode:
		self := event.Token(cluster) + "." + event.Token(node)
		allow := []string{"chaperone.event." + self + ".>", event.RecordingSubject(cluster, ">"),
			"$KV." + BucketApprovals + ".request." + self + ".*"}
		for bucket, key := range map[string]string{BucketApprovals: "votes." + self + ".*", BucketLocks: ">", BucketDocuments: keyOfDocuments} {
			allow = append(allow, following(bucket, key)...)
		}
		return &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: allow},
			Subscribe: &server.SubjectPermission{Allow: own},
		}
	case RoleSink:
		allow := []string{"$JS.API.INFO"}
		for _, s := range []string{StreamEvents, StreamRecordings} {
			allow = append(allow,
				"$JS.API.STREAM.INFO."+s, "$JS.API.CONSUMER.CREATE."+s+".>", "$JS.API.CONSUMER.INFO."+s+".*",
				"$JS.API.CONSUMER.DELETE."+s+".*", "$JS.API.CONSUMER.MSG.NEXT."+s+".*", "$JS.ACK."+s+".>")
		}
		for _, bucket := range []string{BucketApprovals, BucketLocks, BucketDocuments} {
			allow = append(allow, following(bucket, ">")...)
			allow = append(allow, "$JS.API.DIRECT.GET.KV_"+bucket+".$KV."+bucket+".>")
		}
		allow = append(allow, "$KV."+BucketApprovals+".votes.>", "$KV."+BucketLocks+".*", "$KV."+BucketDocuments+"."+keyOfDocuments,
			"chaperone.event.*."+sinkNode+".>")
		return &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: allow},
			Subscribe: &server.SubjectPermission{Allow: own},
		}
	case RoleAuditor:
		return &server.Permissions{
			Publish:   none,
			Subscribe: &server.SubjectPermission{Allow: []string{eventSubjects}},
		}
	case RoleAdmin:
		return &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"$JS.API.>"}},
			Subscribe: &server.SubjectPermission{Allow: own},
		}
	}
	return &server.Permissions{Publish: none, Subscribe: none}
}

// sinkNode stands for the node in the subjects of events that a sink itself
// publishes.
const sinkNode = "sink"

// following is what it takes to bind to a bucket and to follow what is below
// the key, and no more: the server compares the filter in the subject with the
// consumer's.
func following(bucket, key string) []string {
	stream := "KV_" + bucket
	return []string{
		"$JS.API.STREAM.INFO." + stream,
		"$JS.API.CONSUMER.CREATE." + stream + ".*.$KV." + bucket + "." + key,
		"$JS.API.CONSUMER.DELETE." + stream + ".*",
		"$JS.FC." + stream + ".>",
	}
}

// SeedFile is where [Embedded] keeps the NKEY seed of a role, below its state
// folder.
func SeedFile(dir string, r Role) string { return filepath.Join(dir, "nats", string(r)+".nk") }

// loadKey reads a role's seed, or makes one. The file is readable by its owner
// only.
func loadKey(dir string, r Role) (nkeys.KeyPair, error) {
	path := filepath.Join(dir, string(r)+".nk")
	seed, err := os.ReadFile(path)
	if err == nil {
		kp, err := nkeys.FromSeed(seed)
		if err != nil {
			return nil, fmt.Errorf("%s holds no NKEY seed; remove it to have a new one made: %w", path, err)
		}
		return kp, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("NATS key: %w", err)
	}
	kp, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("NATS key: %w", err)
	}
	if seed, err = kp.Seed(); err != nil {
		return nil, fmt.Errorf("NATS key: %w", err)
	}
	if err := writeNew(path, seed); err != nil {
		return nil, fmt.Errorf("NATS key: %w", err)
	}
	return kp, nil
}

// writeNew writes a file that must not exist, whole or not at all.
func writeNew(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}
