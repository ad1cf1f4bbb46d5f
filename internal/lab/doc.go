// Package lab starts the real things that Chaperone is shown and tested
// against: a PostgreSQL server in a folder of its own, a network and mount
// namespace with its own host names, a cgroup, a certificate authority. The
// tests and "chaperone demo" use the same package, so what a test proves is
// what a person can look at.
//
// It knows nothing of the product: no policy, no event, no proxy. Everything
// it makes is private to the process that made it, goes away with it, and can
// exist many times side by side on one machine. Nothing here is meant to serve
// a production system.
package lab
