package mask

import (
	"bytes"
	"encoding/binary"
)

// copySignature begins COPY data in binary format.
const copySignature = "PGCOPY\n\xff\r\n\x00"

// binaryRow covers a tuple, or passes the header or the trailer ("Binary
// Format" of COPY in PostgreSQL's reference).
func (w *CopyRewriter) binaryRow(data []byte) (int, error) {
	if !w.head {
		return w.binaryHeader(data)
	}
	if w.ended {
		return 0, untraceable("COPY data go on behind their trailer")
	}
	if len(data) < 2 {
		return 0, nil
	}
	count := int(int16(binary.BigEndian.Uint16(data)))
	if count == -1 {
		w.ended = true
		w.out = append(w.out, data[:2]...)
		return 2, nil
	}
	if count != len(w.plan.fields) {
		return 0, w.wrongColumns(count)
	}
	// Nothing is written before the tuple is whole.
	w.bounds = w.bounds[:0]
	at := 2
	for range count {
		if len(data)-at < 4 {
			return 0, nil
		}
		size := int(int32(binary.BigEndian.Uint32(data[at:])))
		at += 4
		switch {
		case size == -1:
			w.bounds = append(w.bounds, extent{-1, -1})
			continue
		case size < 0:
			return 0, untraceable("a value of the COPY data is said to have %d bytes", size)
		case size > len(data)-at:
			return 0, nil
		}
		w.bounds = append(w.bounds, extent{at, at + size})
		at += size
	}
	w.out = append(w.out, data[:2]...)
	for i, b := range w.bounds {
		var value []byte
		if b.from < 0 {
			value = w.rows.nullValue(i)
		} else {
			value = data[b.from:b.to]
			if covered, changed := w.rows.value(i, value); changed {
				value = covered
			}
		}
		if value == nil {
			w.out = appendNull(w.out)
			continue
		}
		w.out = append(binary.BigEndian.AppendUint32(w.out, uint32(len(value))), value...)
	}
	return at, nil
}

func (w *CopyRewriter) binaryHeader(data []byte) (int, error) {
	const fixed = len(copySignature) + 8 // flags, length of the extension
	head := data[:min(len(data), len(copySignature))]
	if !bytes.HasPrefix([]byte(copySignature), head) {
		return 0, untraceable("COPY data aren't in the binary format that was announced")
	}
	if len(data) < fixed {
		return 0, nil
	}
	flags := binary.BigEndian.Uint32(data[len(copySignature):])
	extension := binary.BigEndian.Uint32(data[len(copySignature)+4:])
	if flags != 0 || extension != 0 {
		return 0, untraceable("COPY data in binary format have flags or extensions that aren't known")
	}
	w.head = true
	w.out = append(w.out, data[:fixed]...)
	return fixed, nil
}
