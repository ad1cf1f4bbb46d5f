// Package postgresrole makes a PostgreSQL role for each job and drops it
// afterwards. It implements credential.Issuer.
//
// It works with an administrator that has CREATEROLE and is no superuser. On
// PostgreSQL 16 and newer that administrator needs ADMIN OPTION on each role
// that the made ones become members of
// (https://www.postgresql.org/docs/current/role-attributes.html). Its
// connection string leads to the server itself, not to a pooler.
//
// The role's password is made here and only its SCRAM verifier is sent, so
// no server log, query statistic or replica ever holds something to log in
// with.
//
// The package knows nothing of jobs' lives, ledgers or sessions: it is told
// what to make and what to remove.
package postgresrole
