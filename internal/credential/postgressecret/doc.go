// Package postgressecret lets jobs in as a role that is there, by a password that a
// file holds. It implements credential.Issuer and credential.Refresher.
//
// The password is the same for all jobs, and lives as long as who keeps the file
// lets it. It is read for each connection, so one that was changed is used at once;
// jobs never see it. There is nothing to revoke but sessions. They end with the
// proxy's end of them; with an administrator's connection string the server is
// asked to end them as well, and whether they are gone.
//
// The package knows nothing of jobs' lives, ledgers or sessions.
package postgressecret
