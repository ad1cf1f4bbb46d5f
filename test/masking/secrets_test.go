package masking

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// people is how many rows the masked tables have.
const people = 5

// secrets are the masked values of one database, by their name in seed.sql.
// Two databases have different ones of the same shape: whatever differs
// between two answers then tells about them.
type secrets struct {
	values map[string]string
	kinds  map[string]string // text, int, bigint, numeric, date, uuid, bytes
}

func newSecrets(seed uint64) *secrets {
	random := rand.New(rand.NewPCG(seed, 5))
	s := &secrets{values: map[string]string{}, kinds: map[string]string{}}
	token := func(n int) string {
		const letters = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
		b := make([]byte, n)
		for i := range b {
			b[i] = letters[random.IntN(len(letters))]
		}
		return string(b)
	}
	digits := func(n int) string {
		b := []byte{'1' + byte(random.IntN(9))}
		for len(b) < n {
			b = append(b, '0'+byte(random.IntN(10)))
		}
		return string(b)
	}
	day := func() string {
		return fmt.Sprintf("18%02d-%02d-%02d", 10+random.IntN(80), 1+random.IntN(12), 1+random.IntN(28))
	}
	for i := range people {
		set := func(name, kind, value string) {
			name += strconv.Itoa(i + 1)
			s.values[name], s.kinds[name] = value, kind
		}
		set("ssn", "text", token(14))
		set("pin", "int", strconv.Itoa(1_000_000_000+random.IntN(1_000_000_000)))
		set("account", "bigint", digits(18))
		set("salary", "numeric", digits(9)+"."+digits(4))
		set("born", "date", day())
		set("token", "uuid", uuid(random))
		set("plate", "text", token(12))
		set("points", "int", strconv.Itoa(1_000_000_000+random.IntN(1_000_000_000)))
		set("alias", "text", token(12))
		set("nick", "text", token(12))
		set("photo", "bytes", token(12))
		set("code", "text", token(12))
		set("phone", "text", "+"+digits(12))
		set("card", "text", digits(12)) // its last four, which its mask shows, are in seed.sql
		set("email", "text", token(12))
		set("doc", "text", token(12))
		set("from", "date", day())
		set("diary", "text", token(16))
		set("badge", "text", token(12))
		set("amount", "int", strconv.Itoa(1_000_000_000+random.IntN(1_000_000_000)))
	}
	return s
}

func uuid(random *rand.Rand) string {
	var b [16]byte
	for i := range b {
		b[i] = byte(random.IntN(256))
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// fill puts the secrets into SQL, where their names stand in angle brackets.
func (s *secrets) fill(sql string) string {
	pairs := make([]string, 0, 4*len(s.values))
	for name, value := range s.values {
		pairs = append(pairs, "<"+name+">", value, "<"+name+":hex>", hex.EncodeToString([]byte(value)))
	}
	return strings.NewReplacer(pairs...).Replace(sql)
}
