// Package policy reads policy documents and decides by them. Evaluation does
// no I/O, so the same code serves live decisions, dry runs and tests.
package policy
