// Package pgsql reads SQL with PostgreSQL's own grammar and tells what each
// statement is: the facts that policies decide on, and the parse tree that
// masking traces columns in.
//
// It knows no server. Nothing is looked up in a catalog, and so a fact is always
// the cautious one: what can't be seen to be harmless in the text alone counts as
// not read-only. What a database makes of its names, a caller may tell (see
// [Names]). It decides nothing about who may run what; the one thing that it
// refuses by itself are texts which make the server read later texts differently
// from how this package does (see [RefusedError]), since every fact would be
// worthless then.
//
// The grammar is that of the libpg_query release that go.mod names, in its
// default reading: standard_conforming_strings on, and UTF-8. Callers must
// hold the server to that reading: both settings are reported by the server as
// ParameterStatus.
package pgsql
