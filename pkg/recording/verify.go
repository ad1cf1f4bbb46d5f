package recording

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"
)

// Errors of verification, wrapped in a [*Fault] that says which block.
var (
	ErrChanged   = errors.New("was changed")
	ErrMissing   = errors.New("is missing")
	ErrReordered = errors.New("is out of its place")
	ErrAppended  = errors.New("was added behind the recording's end")
	ErrForeign   = errors.New("belongs to another session")
	ErrSignature = errors.New("is not signed by the node")
	ErrTruncated = errors.New("the recording is not closed")
)

// Fault says what is wrong with a recording.
type Fault struct {
	Block  uint64 // index of the block that the fault is at
	Err    error  // one of the errors above, or one that wraps [ErrFormat]
	Detail string
}

// Error implements error.
func (f *Fault) Error() string {
	s := fmt.Sprintf("block %d %v", f.Block, f.Err)
	switch {
	case errors.Is(f.Err, ErrTruncated):
		s = fmt.Sprintf("%v: it stops before block %d", f.Err, f.Block)
	case errors.Is(f.Err, ErrFormat):
		s = fmt.Sprintf("block %d was changed: %v", f.Block, f.Err)
	}
	if f.Detail != "" {
		s += ": " + f.Detail
	}
	return s
}

// Unwrap returns the sentinel.
func (f *Fault) Unwrap() error { return f.Err }

// Report is what a recording was found to be.
type Report struct {
	Session string
	Blocks  uint64
	Frames  uint64
	Root    Hash  // of the last good block
	Key     KeyID // that signed it; zero while not closed
	Closed  bool
	First   time.Time // time of the first frame
	Last    time.Time // time of the last one
}

// Verifier checks a recording's blocks as they come, in order. Its zero value
// is not usable; use [NewVerifier]. A Verifier is for one goroutine.
type Verifier struct {
	key    ed25519.PublicKey
	report Report
}

// NewVerifier starts at the first block of a session that a node signed which
// holds the private part of key. An empty session accepts that of the first block.
func NewVerifier(session string, key ed25519.PublicKey) *Verifier {
	return &Verifier{key: key, report: Report{Session: session}}
}

// ResumeVerifier goes on behind the blocks that report tells of.
func ResumeVerifier(report Report, key ed25519.PublicKey) *Verifier {
	return &Verifier{key: key, report: report}
}

// Report returns what was verified so far.
func (v *Verifier) Report() Report { return v.report }

// Add checks the next block. After an error, a [*Fault], the verifier is where
// it was before, so that the right block may be added still.
func (v *Verifier) Add(b *Block) error {
	r := v.report
	if r.Session == "" && r.Blocks == 0 {
		r.Session = b.Session
	}
	switch {
	case r.Closed:
		return &Fault{b.Index, ErrAppended, ""}
	case b.Session != r.Session:
		return &Fault{b.Index, ErrForeign, fmt.Sprintf("session %q", b.Session)}
	case b.Index > r.Blocks:
		return &Fault{r.Blocks, ErrMissing, ""}
	case b.Index < r.Blocks:
		return &Fault{b.Index, ErrReordered, fmt.Sprintf("it comes again or late, after block %d", r.Blocks-1)}
	case b.Hash != b.Sum():
		return &Fault{b.Index, ErrChanged, "its hash doesn't fit its contents"}
	case b.Previous != r.Root && b.Index == 0:
		return &Fault{0, ErrChanged, "it names a block before it"}
	case b.Previous != r.Root:
		return &Fault{b.Index - 1, ErrChanged, fmt.Sprintf("block %d was chained to another one", b.Index)}
	}
	count := uint32(0)
	for f, err := range b.Frames() {
		if err != nil {
			return &Fault{b.Index, err, ""}
		}
		if f.Seq != r.Frames+1 {
			return &Fault{b.Index, ErrChanged, fmt.Sprintf("frame %d follows frame %d", f.Seq, r.Frames)}
		}
		if f.Seq == 1 {
			r.First = f.At()
		}
		r.Last = f.At()
		r.Frames++
		count++
	}
	if count != b.Count {
		return &Fault{b.Index, ErrChanged, fmt.Sprintf("it holds %d frames and claims %d", count, b.Count)}
	}
	if b.Last {
		if id := IDOf(v.key); b.Key != id {
			return &Fault{b.Index, ErrSignature, fmt.Sprintf("it names key %s, the node's is %s", b.Key, id)}
		}
		if len(v.key) != ed25519.PublicKeySize || !ed25519.Verify(v.key, b.rootMessage(), b.Signature) {
			return &Fault{b.Index, ErrSignature, "the signature doesn't fit"}
		}
		r.Closed, r.Key = true, b.Key
	}
	r.Blocks++
	r.Root = b.Hash
	v.report = r
	return nil
}

// Close says whether the recording is whole: it fails with [ErrTruncated] when
// no last block has come.
func (v *Verifier) Close() (Report, error) {
	if !v.report.Closed {
		return v.report, &Fault{v.report.Blocks, ErrTruncated, ""}
	}
	return v.report, nil
}

// Verify checks a whole recording against the public key of its node. The
// report tells how far it was good. Unlike a [Verifier], which sees a block at
// a time, it tells a block that is missing from one that stands elsewhere.
func (c *Codec) Verify(blocks [][]byte, key ed25519.PublicKey) (Report, error) {
	v := NewVerifier("", key)
	present := make(map[uint64]bool, len(blocks))
	decoded := make([]*Block, len(blocks))
	failed := make([]error, len(blocks))
	for i, data := range blocks {
		b, err := c.Decode(data)
		if err != nil {
			failed[i] = err
			continue
		}
		decoded[i] = b
		present[b.Index] = true
	}
	for i, b := range decoded {
		if b == nil {
			return v.Report(), &Fault{v.Report().Blocks, failed[i], ""}
		}
		err := v.Add(b)
		var fault *Fault
		if errors.As(err, &fault) && errors.Is(err, ErrMissing) && present[fault.Block] {
			err = &Fault{b.Index, ErrReordered, fmt.Sprintf("block %d comes after it", fault.Block)}
		}
		if err != nil {
			return v.Report(), err
		}
	}
	return v.Close()
}
