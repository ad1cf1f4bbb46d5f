// Package sink is where recordings end: it takes blocks from JetStream, checks
// each against the chain it belongs to, keeps them in one file per session and
// an index in SQLite, and serves both to auditors. It trusts no node further
// than its public key goes, and decides nothing.
//
// A block is acknowledged when its file and the index are synced; one that
// comes twice changes nothing. One that doesn't fit its chain is set aside in
// the folder "rejected", with a line in the log, and its session is marked.
//
// Files are <dir>/recordings/<yyyy>/<mm>/<session>.rec: each block as it came,
// behind its length as a big-endian uint32.
package sink
