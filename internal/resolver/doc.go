// Package resolver answers the DNS queries of planners. The kernel diverts them,
// whatever server they were meant for, to sockets that the daemon owns; this
// package answers what arrives there from the node's own hosts file and by asking
// the node's own name servers. A server that a planner chose is never asked: what
// it says about a target's name would be the planner's word.
//
// Before an answer goes back, a [Watcher] is told of every address in it, and
// of every name by which the address is reached. So a new address of a
// target is protected before the planner can know it, and an answer that could
// not be noted is withheld.
//
// Answers of the servers are passed on byte by byte, but for the query's id, so
// signatures stay valid. An answer that can't be read completely is not passed on.
// There is no cache, since the node's resolver has one, and no validation, since
// that is the resolver's or the client's.
//
// The package knows questions, answers, and a number per workload. Which names are
// targets, who a workload is, and how traffic was diverted are not its business.
package resolver
