// Package credential gives each job an account of its own at each target, and
// takes it away when the job is over.
//
// A [Manager] hands out one [Grant] per job and target. Before an [Issuer]
// makes anything at a target, the grant is written to the [Ledger], a file
// that is synced to disk; it leaves the ledger only when a query at the target
// has shown that the account is gone. So whatever dies in between, the next
// start knows what is left and revokes it. Some kinds of credential leave nothing
// at the target but sessions; these are what is taken away then.
//
// The package knows no wire protocol and no session, and neither decides who
// may have a credential. Secrets are held in memory alone, in a type that
// can't be printed; the ledger, the events and the logs name accounts.
package credential
