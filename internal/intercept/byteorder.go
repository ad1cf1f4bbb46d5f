package intercept

import "encoding/binary"

// hton puts a port into network byte order, as the kernel programs hold it.
func hton(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

func ntoh(port uint16) uint16 { return hton(port) }
