// Package mask covers what a principal may not see in the results of SQL
// statements.
//
// Masking follows the data, not the name that a result column happens to have.
// A [Plan] traces each output column of a statement to the table columns that
// feed it, through aliases, expressions, sub-queries, WITH, set operations,
// joins, whole rows and views. If a masked column is among them the output is
// covered: with the rule's own transform where the output is that column
// unchanged, else with "redact", because a transform such as keepLast says
// nothing about what substr() has made of a value. Behind that, detectors look
// for card numbers, keys and the like in every value.
//
// What can't be traced is refused with an [*Untraceable], never let through in
// the clear. That concerns, while a column mask is in force: DO, CALL and functions
// that aren't PostgreSQL's own (they may read any table) but for those in SQL that
// are one query, writing masked values anywhere but into the session's own temporary
// tables, statistics and large objects. See statement.go for the kinds of
// statements. What would tell a masked value by the rows that come is up to the
// mask's predicates, see predicates.go. One channel stays open by nature: whether a
// statement fails may depend on a masked value (1 / CASE WHEN …), one bit at a time.
//
// What only one session knows comes with a statement as [Local]: its temporary
// tables, and what it has prepared in SQL. The rows of a cursor are covered by the
// plan of its DECLARE ([Plan.Later]), data of COPY … TO STDOUT column by column in
// the stream ([CopyRewriter]).
//
// The package knows no connection, no session and no approval; it is handed
// statements, a [Catalog] and rows.
package mask
