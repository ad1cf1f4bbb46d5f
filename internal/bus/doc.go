// Package bus is everything the project knows of NATS: the embedded server of
// the one-machine set-up, connections to a real one, the two streams, and who
// may do what on them. It doesn't know what the messages say.
//
// Four roles, each an NKEY, none with more than it needs:
//
//   - node publishes its own events and recordings; it can neither read nor
//     change what was published
//   - sink consumes both streams; it can't publish into them
//   - auditor subscribes to events
//   - admin makes the streams; on the embedded server its key lives in memory
//     only
//
// There is no anonymous access.
package bus
