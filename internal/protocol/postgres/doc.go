// Package postgres speaks the PostgreSQL frontend/backend protocol, versions
// 3.0 and 3.2, on both sides of a session
// (https://www.postgresql.org/docs/current/protocol.html). It frames and
// forwards bytes, and decodes only what a decision, a mask or the record
// needs. It knows nothing of NATS, eBPF, jobs or policies: what it must ask it
// asks the [Session] it is handed.
//
// A connection goes through [Accept] (what the client says first), [Connect]
// (the server), and [Relay], which runs two goroutines: one reads the client
// and asks the session, the other reads the server and has the answers
// covered. They share the queue of requests that the server is to answer.
//
// # Refused messages
//
// The proxy keeps no transaction state of its own. A message that may not run
// is replaced by one of the same kind that must fail in the server: a Query or
// Parse by a text that isn't SQL, an Execute or Bind by one of a name that
// nothing has. The server's error is replaced by the session's. So a
// transaction fails, a pipeline skips to its Sync, and answers keep their
// order, as after any error.
//
// # Names
//
// What is decided and covered at an Execute is what was read at a Parse, maybe
// long before, and a name is all that joins them. So what a name stands for
// changes only when the server has said that it did: see names.
package postgres
