// Package approval asks people before something happens, and acts on nothing
// but their signed answers.
//
// A node's [Broker] writes a [Request] into a JetStream key-value bucket, and
// waits for votes that the authority signed after it had verified who gave
// them ([Vote]). It verifies each again: the signature, that the vote is for
// this request, session and digest, that it is in time, that the person may
// answer, has not answered before, and is not who the job acts for. Being able to publish on NATS
// gives nobody a say.
//
// The package knows no wire protocol, and nothing of how people log in or are
// shown what is asked (package desk).
package approval
