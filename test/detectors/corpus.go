package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// row is a text as it may stand in a database, with at most one secret in it.
type row struct {
	text   string
	secret string // what must not be seen of it; empty: none
	kind   string // the detector that must find it
	from   string // what a row without a secret looks like instead
}

// generator makes rows. It shares no code with the detectors, so that an error
// in one doesn't hide an error in the other.
type generator struct{ *rand.Rand }

// corpus makes size rows from a seed: one half with secrets of all kinds in
// turn, one half with what only looks like one.
func corpus(seed uint64, size int) []row {
	g := generator{rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15))}
	secrets, lookalikes := g.secrets(), g.lookalikes()
	rows := make([]row, 0, size)
	for i := range size / 2 {
		s := secrets[i%len(secrets)]
		text, secret := s.make()
		rows = append(rows, g.place(row{secret: secret, kind: s.kind}, text))
	}
	for i := range size - size/2 {
		l := lookalikes[i%len(lookalikes)]
		rows = append(rows, g.place(row{from: l.kind}, l.make()))
	}
	g.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	return rows
}

// place puts a text into what may be around it.
func (g generator) place(r row, what string) row {
	switch g.IntN(10) {
	case 0, 1, 2:
		r.text = what // a column of its own
	case 3:
		r.text = g.sentence(3) + " " + what + ", " + g.sentence(4) + "."
	case 4:
		r.text = "Customer wrote: \"" + g.sentence(5) + ": " + what + ". Thanks!\""
	case 5:
		r.text = fmt.Sprintf("2026-%02d-%02dT%02d:%02d:%02d.%03dZ INFO [worker-%d] value=%s status=ok", 1+g.IntN(12), 1+g.IntN(28), g.IntN(24), g.IntN(60), g.IntN(60), g.IntN(1000), g.IntN(64), what)
	case 6:
		r.text = strings.Join([]string{g.word(), what, g.word(), g.digits(3)}, ";")
	case 7:
		r.text = g.sentence(2) + "\n" + what + "\n" + g.sentence(2)
	case 8, 9:
		r.text = fmt.Sprintf(`{"id": %d, "note": "%s", "data": "%s"}`, g.IntN(100000), g.word(), inJSON(what))
		r.secret = inJSON(r.secret)
	}
	return r
}

// inJSON writes a text as a string of JSON, without the quotes, as PostgreSQL does.
func inJSON(s string) string {
	return strings.NewReplacer("\\", "\\\\", `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s)
}

var words = strings.Fields(`account after again amount answer arrived before branch call change city code contact copy
	customer daily date deliver desk door early email entry error every file first floor from green have home house invoice
	item just kind last later letter line list mail market may meet morning name never next nine note number office open
	order other paid paper part pending phone place please price question ready receipt record refund reply report request
	return review road second send service shipped shop since sold sorry station stock store street table team thanks
	there third ticket today total town track train tuesday update urgent visit wait week when with work yesterday`)

func (g generator) word() string { return words[g.IntN(len(words))] }

func (g generator) sentence(n int) string {
	var list []string
	for range n {
		list = append(list, g.word())
	}
	return strings.Join(list, " ")
}

// of makes n characters of an alphabet.
func (g generator) of(alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[g.IntN(len(alphabet))]
	}
	return string(b)
}

const (
	decimals = "0123456789"
	capitals = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	smalls   = "abcdefghijklmnopqrstuvwxyz"
	letters  = capitals + smalls
	hexes    = "0123456789abcdef"
	alnums   = letters + decimals
	base64s  = alnums + "+/"
	urlSafe  = alnums + "-_"
)

func (g generator) digits(n int) string { return g.of(decimals, n) }

// pick is one of a list.
func pick[T any](g generator, list ...T) T { return list[g.IntN(len(list))] }

// grouped puts separators behind every size characters, or behind the sizes given.
func grouped(s, separator string, sizes ...int) string {
	var parts []string
	for i := 0; len(s) > 0; i++ {
		n := min(sizes[min(i, len(sizes)-1)], len(s))
		parts, s = append(parts, s[:n]), s[n:]
	}
	return strings.Join(parts, separator)
}
