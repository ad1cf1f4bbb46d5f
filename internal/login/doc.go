// Package login gets an ID token for the person at a terminal, and keeps it.
//
// A [Client] asks an OpenID issuer, with the device flow (RFC 8628) or with a
// browser on the same machine (RFC 8252), and verifies what it is given before
// anybody sees it. A [Keyring] keeps the token in the kernel's memory, with the
// user's keys, until it expires: it never reaches a disk. What is on the disk, a
// [Server], is no secret.
//
// The package knows nothing of what the token is used for, and prints nothing.
package login
