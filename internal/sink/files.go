package sink

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"chaperone.dev/chaperone/pkg/recording"
)

// file is one session's chain while a batch is stored.
type file struct {
	*chain
	pending []byte // blocks that are not in the file yet
	changed bool
}

// report is where the chain stands, for a verifier to go on from.
func (f *file) report() recording.Report {
	r := recording.Report{Session: f.row.ID, Blocks: f.blocks, Frames: f.frames, Closed: f.closed}
	copy(r.Root[:], f.root)
	if f.blocks > 0 {
		r.First, r.Last = time.Unix(0, f.first).UTC(), time.Unix(0, f.last).UTC()
	}
	return r
}

func appendBlock(b, block []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(block))), block...)
}

// store writes what a batch brought: files first, then the index, which says
// how much of each file counts.
func (s *Sink) store(ctx context.Context, work map[string]*file) error {
	var changed []*chain
	for _, f := range work {
		if !f.changed {
			continue
		}
		if len(f.pending) > 0 {
			if err := s.write(f); err != nil {
				return err
			}
		}
		if f.root == nil {
			f.root = []byte{}
		}
		changed = append(changed, f.chain)
	}
	if len(changed) == 0 {
		return nil
	}
	return s.save(ctx, changed)
}

// write appends to a session's file, over what a crash may have left behind
// the part that counts, and syncs it.
func (s *Sink) write(f *file) (err error) {
	if f.path == "" {
		f.path = filepath.Join(time.Unix(0, f.first).UTC().Format("2006/01"), f.row.ID+".rec")
	}
	path := filepath.Join(s.dir("recordings"), f.path)
	if f.size == 0 {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("recording: %w", err)
		}
	}
	out, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	defer func() {
		if cerr := out.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("recording: %w", cerr)
		}
	}()
	info, err := out.Stat()
	if err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	if info.Size() < f.size {
		return fmt.Errorf("recording %s holds %d bytes, the index says %d: it was cut; restore it", path, info.Size(), f.size)
	}
	if _, err := out.WriteAt(f.pending, f.size); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	if err := out.Truncate(f.size + int64(len(f.pending))); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	if err := out.Sync(); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	if f.size == 0 {
		for dir := filepath.Dir(path); len(dir) >= len(s.opts.Dir); dir = filepath.Dir(dir) {
			if err := syncDir(dir); err != nil {
				return err
			}
		}
	}
	f.size += int64(len(f.pending))
	f.pending = nil
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	return nil
}

// stored says whether exactly this block is kept already.
func (s *Sink) stored(f *file, b *recording.Block) (bool, error) {
	if b.Hash != b.Sum() {
		return false, nil
	}
	found := false
	err := s.eachBlock(f.chain, f.pending, func(data []byte) error {
		have, err := s.codec.Decode(data)
		if err == nil && have.Index == b.Index {
			found = have.Hash == b.Hash
		}
		return nil
	})
	return found, err
}

// eachBlock gives the blocks of a chain, as they came, to f.
func (s *Sink) eachBlock(c *chain, pending []byte, f func([]byte) error) error {
	var in io.Reader = io.MultiReader()
	if c.path != "" && c.size > 0 {
		file, err := os.Open(filepath.Join(s.dir("recordings"), c.path))
		if err != nil {
			return fmt.Errorf("recording: %w", err)
		}
		defer file.Close()
		in = bufio.NewReaderSize(io.LimitReader(file, c.size), 128<<10)
	}
	for _, r := range []io.Reader{in, bytes.NewReader(pending)} {
		if err := readBlocks(r, f); err != nil {
			return err
		}
	}
	return nil
}

// readBlocks reads length-prefixed blocks to the end of r. Each is a fresh
// slice.
func readBlocks(r io.Reader, f func([]byte) error) error {
	var head [4]byte
	for {
		switch _, err := io.ReadFull(r, head[:]); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("recording is cut: %w", err)
		}
		n := binary.BigEndian.Uint32(head[:])
		if n > recording.MaxEncoded {
			return fmt.Errorf("%w: block of %d bytes", recording.ErrFormat, n)
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(r, data); err != nil {
			return fmt.Errorf("recording is cut: %w", err)
		}
		if err := f(data); err != nil {
			return err
		}
	}
}

// reject sets a block aside and marks its session.
func (s *Sink) reject(ctx context.Context, work map[string]*file, id string, data []byte, fault *recording.Fault) error {
	name := "unnamed"
	if recording.ValidSession(id) {
		name = id
		f, err := s.file(ctx, work, id)
		if err != nil {
			return err
		}
		if f.row.Started.IsZero() {
			f.row.Started = time.Now().UTC()
		}
		f.row.State, f.row.Fault, f.changed = StateFaulty, fault.Error(), true
	}
	out, err := os.CreateTemp(s.dir("rejected"), name+"-*.block")
	if err != nil {
		return fmt.Errorf("rejected block: %w", err)
	}
	_, err = out.Write(data)
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("rejected block: %w", err)
	}
	s.opts.Log.Error().Str("session", id).Str("file", out.Name()).Err(fault).Msg("a block does not fit its recording; it is set aside")
	return nil
}
