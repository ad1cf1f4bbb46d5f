package recording

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Codec packs and unpacks blocks. It holds the compressor's tables, so one is
// made and kept. It is safe for concurrent use.
type Codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// NewCodec returns a Codec. It starts no goroutine and needs no closing.
func NewCodec() (*Codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, fmt.Errorf("compressor: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxRaw), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, fmt.Errorf("decompressor: %w", err)
	}
	return &Codec{enc: enc, dec: dec}, nil
}

// unpack decompresses to exactly size bytes, which the caller has bounded. The
// decoder stops at its memory limit, so a bomb costs at most [MaxRaw].
func (c *Codec) unpack(packed []byte, size int) ([]byte, error) {
	if size == 0 && len(packed) == 0 {
		return nil, nil
	}
	raw, err := c.dec.DecodeAll(packed, make([]byte, 0, min(size, 64*len(packed)+64)))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	if len(raw) != size {
		return nil, fmt.Errorf("%d bytes unpacked, the header says %d", len(raw), size)
	}
	return raw, nil
}
