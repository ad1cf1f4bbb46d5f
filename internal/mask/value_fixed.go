package mask

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// fixedValue is a text of a document as a value of a type; nil if it can't be
// read as one.
func fixedValue(s string, f family, bin bool) []byte {
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return nil
	}
	switch f {
	case text:
		return []byte(s)
	case xml:
		return []byte(strings.NewReplacer("&", "&amp;", "<", "&lt;").Replace(s))
	case character:
		if len(s) == 1 {
			return []byte(s)
		}
	case jsonText, jsonb:
		if !json.Valid([]byte(s)) {
			quoted, err := json.Marshal(s)
			if err != nil {
				return nil
			}
			s = string(quoted)
		}
		return jsonValue(f, bin, s)
	case bytea:
		raw := []byte(s)
		if digits, ok := strings.CutPrefix(s, `\x`); ok {
			var err error
			if raw, err = hex.DecodeString(digits); err != nil {
				return nil
			}
		}
		return byteaValue(raw, bin)
	case boolean:
		return fixedBool(s, bin)
	case int2, int4, int8:
		if n, ok := readInteger(f, []byte(s), false); ok {
			return appendInteger(nil, f, n, bin)
		}
	case numeric:
		if d, ok := readDecimal([]byte(s), false); ok {
			return d.append(nil, bin)
		}
	case float4, float8:
		return fixedFloat(s, f, bin)
	case date, timeOfDay, timestamp, timestampTZ:
		return fixedTime(s, f, bin)
	case uuid:
		var raw [16]byte
		if readUUID(&raw, []byte(s)) {
			if bin {
				return raw[:]
			}
			return appendUUID(nil, raw[:])
		}
	case inet, cidr:
		return fixedAddress(s, f, bin)
	}
	return nil
}

func fixedBool(s string, bin bool) []byte {
	var on byte
	switch strings.ToLower(s) {
	case "true", "t", "yes", "y", "on", "1":
		on = 1
	case "false", "f", "no", "n", "off", "0":
	default:
		return nil
	}
	if bin {
		return []byte{on}
	}
	return []byte{"ft"[on]}
}

func fixedFloat(s string, f family, bin bool) []byte {
	if strings.Trim(s, "+-.0123456789eE") != "" { // what else Go reads
		return nil
	}
	n, err := strconv.ParseFloat(s, 8*sizeOf(f))
	switch {
	case err != nil:
		return nil
	case !bin:
		return strconv.AppendFloat(nil, n, 'g', -1, 8*sizeOf(f))
	case f == float4:
		return binary.BigEndian.AppendUint32(nil, math.Float32bits(float32(n)))
	}
	return binary.BigEndian.AppendUint64(nil, math.Float64bits(n))
}

// fixedTime takes a date for a timestamp, too, and UTC for a zone that isn't said.
func fixedTime(s string, f family, bin bool) []byte {
	s = strings.TrimSuffix(s, "Z")
	for _, rest := range []string{"", "+00", " 00:00:00", " 00:00:00+00"} {
		if n, ok := readTime(f, []byte(s+rest), false); ok {
			return appendTime(nil, f, n, bin)
		}
	}
	return nil
}

// Families of binary inet and cidr (utils/inet.h).
const (
	familyIPv4 = 2
	familyIPv6 = 3
)

func fixedAddress(s string, f family, bin bool) []byte {
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return nil
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	addr, family, isCIDR := prefix.Addr(), byte(familyIPv4), byte(0)
	if addr.Is6() {
		family = familyIPv6
	}
	if f == cidr {
		if isCIDR = 1; prefix.Masked() != prefix {
			return nil
		}
	}
	switch {
	case bin:
		raw := addr.AsSlice()
		return append([]byte{family, byte(prefix.Bits()), isCIDR, byte(len(raw))}, raw...)
	case f == inet && prefix.IsSingleIP():
		return []byte(addr.String())
	}
	return []byte(prefix.String())
}
