// Package wal is an append-only log of records in segment files: the floor
// under the journal. It knows nothing of what a record says.
//
// What it promises:
//
//   - Append costs at most one write(2), which those who append at the same
//     time share, or none when the caller lets the record wait for the next
//     one; no lock that Append takes is held during an fsync.
//   - A record is in the kernel when Append returns (it survives the process),
//     and on the disk after at most [Options.SyncEvery] or when Sync returns
//     (it survives the machine).
//   - A write that fails half-way, on a full disk, leaves nothing behind, so
//     that a later record never stands after a torn one.
//   - A torn end after a crash is cut by Open. Damage to anything that had
//     been synced is an error which names the file, never a silent gap.
//
// The last point needs to tell the two apart. Each record carries the position
// up to which the log was synced when it was written. A bad record with a good
// one behind it that says "synced past here" is damage; without one, it is the
// unsynced end that a power failure may tear in any way.
//
// tidwall/wal was tried against this list: it keeps appending behind a torn
// record after a failed write, holds its lock during fsync, and copies the rest
// of a segment under it to trim. The logs of Raft implementations are made for
// Raft's entries, which are synced before they count.
//
// # The bytes
//
// Integers are little-endian. A position (LSN) counts the bytes of records
// since the log began; a segment file is named by the position of its first.
//
//	segment   "CHPWAL01" base:u64 CRC-32C of both:u32 zero:u32, then records
//	record    CRC-32C:u32 len:u32 synced:u64 payload[len]
//
// A record's checksum is over its own position, len, synced and payload, so
// that no record is ever taken for one that belongs elsewhere.
package wal
