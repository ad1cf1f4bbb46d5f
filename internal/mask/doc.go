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
// the clear. That concerns, while a column mask is in force: functions that
// aren't PostgreSQL's own (they may read any table), DO, CALL and EXECUTE,
// cursors, COPY of masked columns, writing masked values elsewhere, statistics
// and large objects, and what would tell a masked value by the rows that come
// back: comparisons other than equality with a constant, sorting by it, and so
// on. See control in control.go for the exact rules, and statement.go for the
// kinds of statements. One channel stays open by nature: whether a statement
// fails may depend on a masked value (1 / CASE WHEN …), one bit at a time.
//
// The package knows no connection, no session and no approval; it is handed
// statements, a [Catalog] and rows.
package mask
