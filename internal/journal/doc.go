// Package journal is the durable queue between a node's sessions and NATS: what
// happens is written down here first, published from here in order, and kept
// until JetStream has acknowledged it. It knows what a session's record is made
// of; it doesn't know how sessions are run, nor who reads what is published.
//
// # How it works
//
// Sessions append frames through a [Recorder]; a command costs one short
// encoding and one write. [Journal.Run], the publisher, reads the records back
// in order. Of each session it groups frames into blocks of the recording, and
// derives events.
//
// Before a block is published, a seal is written to the journal and synced: it
// says where the block ends. After a crash the same blocks are therefore built
// again, with the same message ids, and JetStream drops what it has already.
// Since the ids of events are derived from session and number as well, the same
// holds for them.
//
// From time to time a checkpoint is written: the position before which
// everything was acknowledged, and where each open session's chain stood. A
// start reads from there. What is older is removed, file by file, when it has
// been acknowledged for longer than the server takes to sync it.
//
// A session that was open when the daemon died is closed at the next start:
// its unfinished commands get an outcome, and its recording an end with the
// reason "truncated", signed like any other.
//
// # When it is full
//
// From [Options.MaxBytes] on, new sessions, commands and events are refused
// with [ErrFull]. How a command went that is under way, and the end of a
// session, are still taken: a reserve is held back for them.
package journal
