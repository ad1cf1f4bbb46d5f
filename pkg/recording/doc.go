// Package recording is the format in which a session is kept: written on the
// node, verified by anybody who holds the node's public key. It knows bytes,
// hashes and signatures; it does not know where blocks are stored or how they
// travel.
//
// A recording is a sequence of blocks, a block a sequence of frames. A frame
// is one thing that happened: a command before it went upstream, how it went,
// what was masked. Every block carries the hash of the one before it; the last
// one is marked as such and carries the node's Ed25519 signature over the
// session, the number of blocks and the root, which is the last block's hash.
// So a recording from which a block was changed, dropped, moved or added fails
// to verify, and so does one that merely stops.
//
// # The bytes
//
// All integers are big-endian, "uvarint" is that of encoding/binary.
//
//	block     "CHRB" version:u8 (1) flags:u8 (1: last)
//	          len:u8 session[len] index:u64 previous[32] hash[32]
//	          frames:u32 raw:u32 packed:u32 payload[packed]
//	          if last: key id[8] signature[64]
//	          CRC-32C of all of the above:u32
//	payload   zstd of raw bytes of frames
//	frame     seq:uvarint time:u64 (Unix ns) kind:u8 direction:u8 len:uvarint payload[len]
//
//	hash      SHA-256("chaperone recording block v1\x00" flags:u8 len:u8 session
//	                  index:u64 previous frames:u32 raw bytes of frames)
//	signature Ed25519("chaperone recording root v1\x00" len:u8 session blocks:u64 root)
//	key id    first 8 bytes of SHA-256(public key)
//
// The hash covers the frames before compression, so a block may be packed
// again without a break in the chain. The first block's previous hash is zero.
// Frames are numbered from 1 through all blocks of a session.
package recording
