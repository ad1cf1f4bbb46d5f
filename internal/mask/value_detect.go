package mask

import "bytes"

// looking looks for secrets in a value and tells whether there were any. Then
// covered stands for the value; nil is NULL. What it finds is counted in f.
type looking func(w *Rewriter, f *fieldRewriter, v []byte) (covered []byte, found bool)

// lookingAt is how values of a type are looked at, nil if nothing could be found
// in them. Text and JSON keep what isn't a find, arrays the elements without.
func lookingAt(oid uint32, format int16) looking {
	t, binary := typeOf(oid), format == 1
	if !t.secretive() {
		return nil
	}
	if t.family != array {
		return lookingAtFamily(t.family, binary)
	}
	element := lookingAtFamily(familyOf(t.elem), binary)
	return func(w *Rewriter, f *fieldRewriter, v []byte) ([]byte, bool) {
		if !binary && w.detectors.possible(v) == 0 {
			return nil, false
		}
		found, keys := false, f.found[privateKey]
		cover := coverArray(t.elem, binary, func(out, v []byte) ([]byte, bool) {
			covered, ok := element(w, f, v)
			switch {
			case !ok:
				return append(out, v...), true
			case covered == nil:
				found = true
				return out, false
			}
			found = true
			return append(out, covered...), true
		})
		if out, ok := cover(nil, v); ok {
			if f.found[privateKey] > keys {
				return nil, true // its lines may be elements of their own
			}
			return out, found
		}
		return w.look(f, v) // no array that can be read
	}
}

func lookingAtFamily(f family, binary bool) looking {
	switch {
	case f == text || f == xml:
		return func(w *Rewriter, f *fieldRewriter, v []byte) ([]byte, bool) { return w.replace(f, v, 0, false) }
	case f == jsonb && binary:
		return func(w *Rewriter, f *fieldRewriter, v []byte) ([]byte, bool) { return w.replace(f, v, 1, true) }
	case f == jsonText || f == jsonb:
		return func(w *Rewriter, f *fieldRewriter, v []byte) ([]byte, bool) { return w.replace(f, v, 0, true) }
	case f == bytea && !binary:
		return func(w *Rewriter, f *fieldRewriter, v []byte) ([]byte, bool) {
			raw, ok := readBytea(v, false)
			if !ok {
				raw = v
			}
			return w.look(f, raw)
		}
	case f == int8 && binary:
		return func(w *Rewriter, f *fieldRewriter, v []byte) ([]byte, bool) {
			n, ok := readInteger(int8, v, true)
			if !ok {
				return nil, false
			}
			var room [20]byte
			return w.look(f, decimalOf(n).append(room[:0], false))
		}
	case f == numeric && binary:
		return func(w *Rewriter, f *fieldRewriter, v []byte) ([]byte, bool) {
			d, ok := readNumeric(v)
			if !ok {
				return nil, false
			}
			return w.look(f, d.whole)
		}
	}
	return (*Rewriter).look
}

// look looks into a value that can't hold a replacement.
func (w *Rewriter) look(f *fieldRewriter, v []byte) ([]byte, bool) {
	d, ok := w.detectors.any(v)
	if ok {
		f.found[d]++
	}
	return nil, ok
}

// replace replaces what is found in a value, behind head bytes of it.
func (w *Rewriter) replace(f *fieldRewriter, v []byte, head int, json bool) ([]byte, bool) {
	head = min(head, len(v))
	w.found = [detectorCount]uint64{}
	replaced := w.detectors.replace(v[head:], json, &w.found)
	if w.found == [detectorCount]uint64{} {
		return nil, false
	}
	for d, n := range w.found {
		f.found[d] += n
	}
	if head > 0 {
		return append(bytes.Clone(v[:head]), replaced...), true
	}
	return replaced, true
}
