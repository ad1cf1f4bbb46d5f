// Package postgres speaks the PostgreSQL frontend/backend protocol, versions
// 3.0 and 3.2, on both sides of a session
// (https://www.postgresql.org/docs/current/protocol.html). It frames and
// forwards bytes, and decodes only what a decision, a mask or the record
// needs. It knows nothing of NATS, eBPF, jobs or policies: what it must ask it
// asks the [Session] it is handed.
package postgres
