// Package doctor looks at a machine and says what a node of Chaperone would
// miss on it: kernel, cgroups, files, NATS, issuers and targets. It asks the
// rooms that know (intercept, identity, bus, policy) and tells what it found
// in words for the person who has to do something about it.
//
// It changes nothing, needs no daemon, and does not mind one. Run by somebody
// who is not root it skips what that one can't see. It logs in nowhere, and it
// knows nothing of jobs, sessions and recordings.
package doctor
