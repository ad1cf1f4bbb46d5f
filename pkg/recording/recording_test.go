package recording_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"chaperone.dev/chaperone/pkg/recording"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

func codec(t testing.TB) *recording.Codec {
	t.Helper()
	c, err := recording.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func testKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

// chain builds a recording of n blocks with two frames each.
func chain(t testing.TB, c *recording.Codec, session string, n int, key ed25519.PrivateKey) ([][]byte, []recording.Frame) {
	t.Helper()
	var blocks [][]byte
	var all []recording.Frame
	var prev recording.Hash
	seq := uint64(0)
	for i := range n {
		var raw []byte
		for j := range 2 {
			seq++
			f := recording.Frame{Seq: seq, Time: int64(seq) * 1000, Kind: recording.KindCommand, Direction: recording.ToTarget,
				Payload: fmt.Appendf(nil, `{"session":%q,"text":"SELECT %d.%d"}`, session, i, j)}
			var err error
			if raw, err = recording.AppendFrame(raw, f); err != nil {
				t.Fatal(err)
			}
			all = append(all, f)
		}
		var last ed25519.PrivateKey
		if i == n-1 {
			last = key
		}
		b, err := recording.Build(session, uint64(i), prev, 2, raw, last)
		if err != nil {
			t.Fatal(err)
		}
		prev = b.Hash
		blocks = append(blocks, c.Encode(b))
	}
	return blocks, all
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func TestRoundTrip(t *testing.T) {
	c, key := codec(t), testKey(1)
	blocks, want := chain(t, c, "s-1", 4, key)
	var got []recording.Frame
	for _, data := range blocks {
		b, err := c.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		for f, err := range b.Frames() {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, f)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	r, err := c.Verify(blocks, public(key))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Closed || r.Blocks != 4 || r.Frames != 8 || r.Session != "s-1" || r.Key != recording.IDOf(public(key)) || r.Last.UnixNano() != 8000 {
		t.Fatalf("%+v", r)
	}
}

func TestVerifyNamesTheFault(t *testing.T) {
	c, key := codec(t), testKey(1)
	good, _ := chain(t, c, "s-1", 4, key)
	other, _ := chain(t, c, "s-2", 4, key)
	forged, _ := chain(t, c, "s-1", 4, testKey(2))
	longer, _ := chain(t, c, "s-1", 6, key)
	recount := func(data []byte, edit func(*recording.Block)) []byte {
		b, err := c.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		edit(b)
		return c.Encode(b)
	}
	for name, tc := range map[string]struct {
		blocks [][]byte
		want   error
		block  uint64
	}{
		"first dropped":     {good[1:], recording.ErrMissing, 0},
		"middle dropped":    {slices.Concat(good[:2], good[3:]), recording.ErrMissing, 2},
		"last dropped":      {good[:3], recording.ErrTruncated, 3},
		"all dropped":       {nil, recording.ErrTruncated, 0},
		"swapped":           {[][]byte{good[0], good[2], good[1], good[3]}, recording.ErrReordered, 2},
		"last first":        {[][]byte{good[3], good[0], good[1], good[2]}, recording.ErrReordered, 3},
		"repeated":          {[][]byte{good[0], good[1], good[1], good[2], good[3]}, recording.ErrReordered, 1},
		"appended":          {slices.Concat(good, longer[4:5]), recording.ErrAppended, 4},
		"last again":        {slices.Concat(good, good[3:]), recording.ErrAppended, 3},
		"of another":        {[][]byte{good[0], other[1], good[2], good[3]}, recording.ErrForeign, 1},
		"another key":       {forged, recording.ErrSignature, 3},
		"changed, old hash": {[][]byte{good[0], recount(good[1], func(b *recording.Block) { b.Raw[len(b.Raw)-3] ^= 1 }), good[2], good[3]}, recording.ErrChanged, 1},
		"changed, new hash": {[][]byte{good[0], recount(good[1], func(b *recording.Block) { b.Raw[len(b.Raw)-3] ^= 1; b.Hash = b.Sum() }), good[2], good[3]}, recording.ErrChanged, 1},
		"frame count":       {[][]byte{recount(good[0], func(b *recording.Block) { b.Count = 1; b.Hash = b.Sum() }), good[1]}, recording.ErrChanged, 0},
		"frames renumbered": {[][]byte{recount(good[0], func(b *recording.Block) { b.Raw[0] = 9; b.Hash = b.Sum() })}, recording.ErrChanged, 0},
		"end unmarked":      {[][]byte{good[0], good[1], good[2], recount(good[3], func(b *recording.Block) { b.Last = false; b.Hash = b.Sum() })}, recording.ErrTruncated, 4},
		"last rehashed":     {[][]byte{good[0], good[1], good[2], recount(good[3], func(b *recording.Block) { b.Raw[len(b.Raw)-3] ^= 1; b.Hash = b.Sum() })}, recording.ErrSignature, 3},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Verify(tc.blocks, public(key))
			var fault *recording.Fault
			if !errors.Is(err, tc.want) || !errors.As(err, &fault) {
				t.Fatalf("got %v, want a fault: %v", err, tc.want)
			}
			if fault.Block != tc.block {
				t.Fatalf("%v: names block %d, want %d", err, fault.Block, tc.block)
			}
		})
	}
}

func TestEveryChangedBitIsFound(t *testing.T) {
	c, key := codec(t), testKey(1)
	good, _ := chain(t, c, "s-1", 2, key)
	for i := range good {
		for at := range good[i] {
			for bit := range 8 {
				bad := slices.Clone(good)
				bad[i] = slices.Clone(good[i])
				bad[i][at] ^= 1 << bit
				_, err := c.Verify(bad, public(key))
				var fault *recording.Fault
				if !errors.As(err, &fault) {
					t.Fatalf("block %d, byte %d, bit %d: %v", i, at, bit, err)
				}
				if fault.Block != uint64(i) {
					t.Fatalf("block %d, byte %d, bit %d: names block %d: %v", i, at, bit, fault.Block, err)
				}
			}
		}
		for n := range good[i] {
			if _, err := c.Decode(good[i][:n]); !errors.Is(err, recording.ErrFormat) {
				t.Fatalf("block %d cut at %d: %v", i, n, err)
			}
		}
	}
}

// What is signed covers frames, not their packing.
func TestRepackedBlockVerifies(t *testing.T) {
	c, key := codec(t), testKey(1)
	good, _ := chain(t, c, "s-1", 1, key)
	b, err := c.Decode(good[0])
	if err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		t.Fatal(err)
	}
	packed := enc.EncodeAll(b.Raw, nil)
	v := recording.NewVerifier("s-1", public(key))
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	if b.Raw, err = dec.DecodeAll(packed, nil); err != nil {
		t.Fatal(err)
	}
	if err := v.Add(b); err != nil {
		t.Fatal(err)
	}
}

func TestLimits(t *testing.T) {
	c := codec(t)
	if _, err := recording.AppendFrame(nil, recording.Frame{Payload: make([]byte, recording.MaxPayload+1)}); !errors.Is(err, recording.ErrFormat) {
		t.Errorf("oversized frame: %v", err)
	}
	if _, err := recording.Build("s", 0, recording.Hash{}, 1, make([]byte, recording.MaxRaw+1), nil); !errors.Is(err, recording.ErrFormat) {
		t.Errorf("oversized block: %v", err)
	}
	if _, err := recording.Build(strings.Repeat("s", recording.MaxSession+1), 0, recording.Hash{}, 0, nil, nil); !errors.Is(err, recording.ErrFormat) {
		t.Errorf("oversized session: %v", err)
	}
	// A bomb: a block whose payload unpacks to far more than it says.
	b, err := recording.Build("s", 0, recording.Hash{}, 0, make([]byte, recording.MaxRaw), nil)
	if err != nil {
		t.Fatal(err)
	}
	data := c.Encode(b)
	at := 4 + 1 + 1 + 1 + 1 + 8 + 32 + 32 + 4
	binary.BigEndian.PutUint32(data[at:], 100)
	data = recording.Reseal(data)
	if _, err := c.Decode(data); !errors.Is(err, recording.ErrFormat) {
		t.Errorf("block that unpacks to more than it says: %v", err)
	}
	binary.BigEndian.PutUint32(data[at:], 1<<31)
	if _, err := c.Decode(recording.Reseal(data)); !errors.Is(err, recording.ErrFormat) {
		t.Errorf("block that says it is huge: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	c := codec(f)
	good, _ := chain(f, c, "s-1", 2, testKey(1))
	for _, b := range good {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, recording.Reseal(data)} {
			b, err := c.Decode(data)
			if err != nil {
				if !errors.Is(err, recording.ErrFormat) {
					t.Fatalf("error is no ErrFormat: %v", err)
				}
				continue
			}
			again, err := c.Decode(c.Encode(b))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(b, again); diff != "" {
				t.Fatal(diff)
			}
			_ = recording.NewVerifier("", public(testKey(1))).Add(b)
		}
	})
}

func FuzzFrames(f *testing.F) {
	raw, err := recording.AppendFrame(nil, recording.Frame{Seq: 1, Time: 2, Kind: recording.KindOutcome, Payload: []byte("{}")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		total := 0
		for fr, err := range (&recording.Block{Raw: raw}).Frames() {
			if err != nil {
				if !errors.Is(err, recording.ErrFormat) {
					t.Fatal(err)
				}
				return
			}
			total += len(fr.Payload)
			back, err := recording.AppendFrame(nil, fr)
			if err != nil {
				t.Fatal(err)
			}
			for again, err := range (&recording.Block{Raw: back}).Frames() {
				if err != nil || !cmp.Equal(again, fr) {
					t.Fatalf("%+v, then %+v, %v", fr, again, err)
				}
			}
		}
		if total > len(raw) {
			t.Fatalf("%d bytes of payload out of %d", total, len(raw))
		}
	})
}

func BenchmarkBlock(b *testing.B) {
	c := codec(b)
	var raw []byte
	n := uint32(0)
	for len(raw) < 64<<10 {
		n++
		payload := fmt.Appendf(nil, `{"session":"0197b0c2-7a51-7000-8000-3f6d8f6c1e55","seq":%d,"text":"SELECT abalance FROM pgbench_accounts WHERE aid = %d;","digest":"%x"}`, n, n*7919, n*12345)
		var err error
		if raw, err = recording.AppendFrame(raw, recording.Frame{Seq: uint64(n), Time: int64(n), Kind: recording.KindCommand, Payload: payload}); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	var size int
	for b.Loop() {
		blk, err := recording.Build("s", 0, recording.Hash{}, n, raw, nil)
		if err != nil {
			b.Fatal(err)
		}
		size = len(c.Encode(blk))
	}
	b.ReportMetric(float64(size)/float64(len(raw)), "packed/raw")
}
