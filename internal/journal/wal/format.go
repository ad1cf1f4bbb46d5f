package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// LSN is a position in the log: bytes of records since it began.
type LSN uint64

// Errors of this package.
var (
	// ErrCorrupt: synced data is damaged or missing. The error names the file.
	ErrCorrupt = errors.New("journal is damaged")
	// ErrLocked: another process has the log open.
	ErrLocked = errors.New("journal is in use by another process")
	// ErrTooLarge: a record exceeds [MaxRecord].
	ErrTooLarge = errors.New("record is too large for the journal")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("journal is closed")
)

// MaxRecord is the longest record in bytes.
const MaxRecord = 16 << 20

const (
	segmentMagic  = "CHPWAL01"
	segmentHeader = 24
	recordHeader  = 16
	suffix        = ".seg"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func segmentName(base LSN) string { return fmt.Sprintf("%020d%s", uint64(base), suffix) }

func appendSegmentHeader(b []byte, base LSN) []byte {
	start := len(b)
	b = append(b, segmentMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(base))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	return binary.LittleEndian.AppendUint32(b, 0)
}

func appendRecord(b []byte, at, synced LSN, payload []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint64(b, uint64(synced))
	b = append(b, payload...)
	binary.LittleEndian.PutUint32(b[start:], checksum(at, b[start+4:]))
	return b
}

// checksum is over the record's position and all of it but the checksum.
func checksum(at LSN, rest []byte) uint32 {
	var pos [8]byte
	binary.LittleEndian.PutUint64(pos[:], uint64(at))
	return crc32.Update(crc32.Checksum(pos[:], castagnoli), castagnoli, rest)
}

// parseRecord reads the record that starts b and stands at a position. It
// returns ok false when there is none, or not all of it.
func parseRecord(b []byte, at LSN) (payload []byte, synced LSN, ok bool) {
	if len(b) < recordHeader {
		return nil, 0, false
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if n == 0 || n > MaxRecord || int(n) > len(b)-recordHeader {
		return nil, 0, false
	}
	end := recordHeader + int(n)
	if checksum(at, b[4:end]) != binary.LittleEndian.Uint32(b) {
		return nil, 0, false
	}
	return b[recordHeader:end:end], LSN(binary.LittleEndian.Uint64(b[8:])), true
}

// segment is one file of the log.
type segment struct {
	base LSN
	path string
}

// listSegments returns the segment files of a folder in order.
func listSegments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var segs []segment
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || len(digits) != 20 {
			continue
		}
		base, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			continue
		}
		segs = append(segs, segment{LSN(base), filepath.Join(dir, e.Name())})
	}
	slices.SortFunc(segs, func(a, b segment) int {
		if a.base < b.base {
			return -1
		}
		return 1
	})
	return segs, nil
}
