package recording

import (
	"encoding/binary"
	"hash/crc32"
)

// Reseal returns data with a checksum that fits, so that tests reach what is
// behind it.
func Reseal(data []byte) []byte {
	if len(data) < 4 {
		return data
	}
	body := data[: len(data)-4 : len(data)-4]
	return binary.BigEndian.AppendUint32(body, crc32.Checksum(body, castagnoli))
}
