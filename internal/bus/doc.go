// Package bus is everything the project knows of NATS: the embedded server of
// the one-machine set-up, connections to a real one, the two streams and the
// three key-value buckets, and who may do what on them. It doesn't know what
// the messages say.
//
// Four roles, each an NKEY, none with more than it needs:
//
//   - node publishes its own events, recordings and requests for approval; it
//     follows votes on its own requests, locks and documents; it can neither
//     read nor change anything else
//   - sink consumes both streams, and can't publish into them, but for events
//     under its own name; it follows the buckets and writes votes, locks and
//     documents
//   - auditor subscribes to events
//   - admin makes the streams and buckets; on the embedded server its key
//     lives in memory only
//
// There is no anonymous access.
//
// The permissions keep roles apart, and are no proof of who wrote something. A
// server sends its own answers to whatever subject a request names for them, so
// that who has any key can put an answer of the server, never words of their own, in
// the place of a value or an event. Values that count are signed for that reason.
package bus
