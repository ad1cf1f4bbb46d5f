// Package certs is the node's certificate authority. It proves to a planner's
// own client that the proxy stands for the host the client asked for, so that
// clients which verify (sslmode=verify-full, strict host keys) go on doing so.
//
// [Open] keeps the authority's key in a folder that is the daemon's alone;
// [Authority.Leaf] signs short-lived certificates for host names;
// [Authority.WriteTrust] writes the files that clients look for.
//
// The package knows no target and no policy: who asks for a leaf has made
// sure that this name may be stood for. It has no part in verifying targets.
package certs
