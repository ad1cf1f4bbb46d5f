// Package policy reads policy documents and decides by them.
//
// [Load] turns a folder of YAML documents into a [Set], or refuses the folder
// and says everything that is wrong with it, each thing with its file, line
// and field. A document that names something this release does not enforce is
// refused too: nothing in a document is ever silently ignored.
//
// [Set.Bind] picks the rules that hold for one principal at one target. The
// [Bound] it returns answers whether a session may be opened and whether a
// statement, command, file operation or API request may be done in it, and
// explains its answers. Deny wins over approve, approve over allow; nothing
// allowed means denied; a rule that can't be evaluated denies. Policies with
// "enforce: shadow" have no effect but a note of what they would have changed.
//
// Evaluation does no I/O and reads no clock, so the same code serves live
// decisions, dry runs and tests. The package knows no wire protocol, parses no
// SQL, verifies no identity and asks nobody for an approval: it is handed facts
// that others established, and says which approvals are needed.
package policy
