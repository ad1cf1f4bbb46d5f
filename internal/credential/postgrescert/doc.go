// Package postgrescert signs an X.509 client certificate for each job, by which it
// is let in as a role that is there (pg_hba.conf's method cert). It implements
// credential.Issuer and credential.Refresher.
//
// The private keys are made here and never leave the process's memory. A
// certificate lives for minutes; the server looks at it when a connection is
// opened, and never again, so there is nothing to revoke but sessions. They end
// with the proxy's end of them; with an administrator's connection string the
// server is asked to end them as well, and whether they are gone.
//
// The package knows nothing of jobs' lives, ledgers or sessions: it is told
// what to make and what to end.
package postgrescert
