package mask

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"math/big"
)

// permutation swaps values of a set for others of the same set, each for one
// of its own, by a secret key: a Feistel network in the manner of NIST SP
// 800-38G (FF1), whose rounds are CBC-MACs. It isn't safe for concurrent use.
type permutation struct {
	block   cipher.Block
	message []byte
	stream  []byte
}

const feistelRounds = 10

// newPermutation derives the key, so that one secret of a document can serve
// codes and permutations.
func newPermutation(secret []byte) *permutation {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("chaperone format-preserving"))
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		panic(err) // a SHA-256 sum has a length that AES takes
	}
	return &permutation{block: block}
}

// mac is the CBC-MAC of a message, with its length before it.
func (p *permutation) mac(tag byte, round int, size int, data []byte) (sum [aes.BlockSize]byte) {
	p.message = append(p.message[:0], tag, byte(round), 0, 0)
	p.message = binary.BigEndian.AppendUint32(p.message, uint32(size))
	p.message = binary.BigEndian.AppendUint64(p.message, uint64(len(data)))
	p.message = append(p.message, data...)
	for len(p.message)%aes.BlockSize != 0 {
		p.message = append(p.message, 0)
	}
	for m := p.message; len(m) > 0; m = m[aes.BlockSize:] {
		for i := range sum {
			sum[i] ^= m[i]
		}
		p.block.Encrypt(sum[:], sum[:])
	}
	return sum
}

// pick is a keyed number below n for a value.
func (p *permutation) pick(tag byte, value uint64, n uint64) uint64 {
	sum := p.mac(tag, 0, 8, binary.BigEndian.AppendUint64(nil, value))
	return binary.BigEndian.Uint64(sum[:]) % n
}

// Tags keep the uses of a key apart.
const (
	tagBits byte = iota + 1
	tagSymbols
	tagOne
	tagDay
	tagClock
)

// bits swaps a number of 2*half bits for another.
func (p *permutation) bits(v uint64, half uint) uint64 {
	mask := uint64(1)<<half - 1
	left, right := v>>half&mask, v&mask
	var data [8]byte
	for round := range feistelRounds {
		binary.BigEndian.PutUint64(data[:], right)
		sum := p.mac(tagBits, round, int(half), data[:])
		left, right = right, left^binary.BigEndian.Uint64(sum[:])&mask
	}
	return left<<half | right
}

// integer swaps a whole number for another that takes as much room: int2, int4
// or int8. So the same number becomes the same in a column of any of them.
func (p *permutation) integer(v int64) int64 {
	switch {
	case v == int64(int16(v)):
		return int64(int16(p.bits(uint64(uint16(v)), 8)))
	case v == int64(int32(v)):
		for {
			if v = int64(int32(p.bits(uint64(uint32(v)), 16))); v != int64(int16(v)) {
				return v
			}
		}
	}
	for {
		if v = int64(p.bits(uint64(v), 32)); v != int64(int32(v)) {
			return v
		}
	}
}

// symbol is one place of a text, of so many possible values.
type symbol struct{ value, radix byte }

// maxSymbols bounds what symbols has to do.
const maxSymbols = 128

// symbols swaps a sequence for another of the same radices, in place.
func (p *permutation) symbols(s []symbol) {
	if len(s) == 1 {
		s[0].value = p.one(s[0])
		return
	}
	half := len(s) / 2
	a, sizeA := number(s[:half])
	b, sizeB := number(s[half:])
	for round := range feistelRounds {
		if round%2 == 0 {
			a.Mod(a.Add(a, p.function(round, len(s), b, sizeA)), sizeA)
		} else {
			b.Mod(b.Add(b, p.function(round, len(s), a, sizeB)), sizeB)
		}
	}
	spell(a, s[:half])
	spell(b, s[half:])
}

// function is a round's, with 64 bits more than the modulus needs.
func (p *permutation) function(round, size int, v, modulus *big.Int) *big.Int {
	sum := p.mac(tagSymbols, round, size, v.Bytes())
	p.stream = append(p.stream[:0], sum[:]...)
	for i := byte(1); len(p.stream) < (modulus.BitLen()+7)/8+8; i++ {
		next := sum
		next[0] ^= i
		p.block.Encrypt(next[:], next[:])
		p.stream = append(p.stream, next[:]...)
	}
	return new(big.Int).SetBytes(p.stream)
}

// one is where a keyed shuffle of all values puts one of them.
func (p *permutation) one(s symbol) byte {
	rank := func(v byte) [aes.BlockSize]byte { return p.mac(tagOne, 0, int(s.radix), []byte{v}) }
	own := rank(s.value)
	var place byte
	for v := range s.radix {
		if other := rank(v); v != s.value && bytes.Compare(other[:], own[:]) < 0 {
			place++
		}
	}
	return place
}

func number(s []symbol) (value, size *big.Int) {
	value, size = new(big.Int), big.NewInt(1)
	for _, sym := range s {
		radix := big.NewInt(int64(sym.radix))
		value.Add(value.Mul(value, radix), big.NewInt(int64(sym.value)))
		size.Mul(size, radix)
	}
	return value, size
}

func spell(value *big.Int, s []symbol) {
	rest := new(big.Int)
	for i := len(s) - 1; i >= 0; i-- {
		value.QuoRem(value, big.NewInt(int64(s[i].radix)), rest)
		s[i].value = byte(rest.Int64())
	}
}

// digits swaps decimal digits for others, in place. Zeros in front stay, and
// none comes new: the number keeps its length. The last digit counts even if it
// is zero. keep tells which results are taken, nil: all; it must take the
// original. false: there are too many.
func (p *permutation) digits(d []byte, keep func([]byte) bool) bool {
	for len(d) > 1 && d[0] == '0' {
		d = d[1:]
	}
	if len(d) == 0 || len(d) > maxSymbols {
		return false
	}
	var room [maxSymbols]symbol
	s := room[:len(d)]
	for i, c := range d {
		s[i] = symbol{c - '0', 10}
	}
	for {
		p.symbols(s)
		for i := range s {
			d[i] = '0' + s[i].value
		}
		if (d[0] != '0' || len(d) == 1) && (keep == nil || keep(d)) {
			return true
		}
	}
}
