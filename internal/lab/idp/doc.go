// Package idp is a real OpenID provider on loopback, for the tests and for
// "chaperone demo": people that log in with a browser or from a device, service
// accounts with a secret, keys that rotate, and outages. The protocol is the
// certified library's, github.com/zitadel/oidc; here are the people, the clients
// and the keys.
//
// It knows nothing of the product: no policy, no principal. Nothing that it knows
// outlives it, passwords are compared as they are, and each login asks for one:
// it is no provider for anything real.
package idp
