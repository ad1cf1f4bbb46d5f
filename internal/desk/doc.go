// Package desk is where people answer: it shows requests for approval, tells
// webhooks of them, verifies who answers, and has the authority sign the
// answer. Locks and published documents come this way too.
//
// People come over TLS with an ID token or a session of the page, through
// Slack's buttons, or on the sink's unix socket, where the kernel says who they
// are. Who may answer what is the request's matter (package approval), and a node
// checks each answer again: the desk's word alone lets nothing through.
//
// The desk knows no wire protocol and no policy language. Text of requests is
// a stranger's: it leaves as JSON, or escaped for where it is shown.
package desk
