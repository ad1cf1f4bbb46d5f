package wal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/journal/wal"
	"golang.org/x/sys/unix"
)

// never keeps the log's own timer out of a test.
const never = time.Hour

func open(t testing.TB, o wal.Options) *wal.Log {
	t.Helper()
	if o.SyncEvery == 0 {
		o.SyncEvery = never
	}
	l, err := wal.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func appendAll(t testing.TB, l *wal.Log, lazy bool, recs ...string) []wal.LSN {
	t.Helper()
	var at []wal.LSN
	for _, r := range recs {
		lsn, err := l.Append([]byte(r), lazy)
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, lsn)
	}
	return at
}

func readAll(t testing.TB, l *wal.Log, from wal.LSN) []string {
	t.Helper()
	r := l.NewReader(from)
	defer r.Close()
	var got []string
	for {
		rec, _, _, err := r.Next()
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(rec))
	}
}

func numbered(n, size int) []string {
	var recs []string
	for i := range n {
		recs = append(recs, fmt.Sprintf("%06d%s", i, strings.Repeat("x", size)))
	}
	return recs
}

func same(t *testing.T, want, got []string) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range want {
		if want[i] != got[i] {
			t.Fatalf("record %d is %.40q, want %.40q", i, got[i], want[i])
		}
	}
}

// copyDir is what another process would find if this one died now.
func copyDir(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(filepath.Join(to, "log"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(to, "log")
}

func segments(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestRecordsComeBackInOrder(t *testing.T) {
	dir := t.TempDir()
	l := open(t, wal.Options{Dir: dir, SegmentBytes: 4 << 10})
	want := numbered(500, 100)
	want[250] += strings.Repeat("long", 200_000)
	at := appendAll(t, l, false, want...)
	same(t, want, readAll(t, l, 0))
	same(t, want[100:], readAll(t, l, at[99]))

	var visited []string
	again := open(t, wal.Options{Dir: copyDir(t, dir), Visit: func(_, _ wal.LSN, rec []byte) error {
		visited = append(visited, string(rec))
		return nil
	}})
	same(t, want, visited)
	same(t, want, readAll(t, again, 0))
	more := append(want, "more")
	appendAll(t, again, false, "more")
	same(t, more, readAll(t, again, 0))
}

func TestLazyRecordsAreWrittenWithTheNext(t *testing.T) {
	l := open(t, wal.Options{Dir: t.TempDir()})
	appendAll(t, l, true, "a", "b")
	same(t, nil, readAll(t, l, 0))
	appendAll(t, l, false, "c")
	same(t, []string{"a", "b", "c"}, readAll(t, l, 0))
	appendAll(t, l, true, "d")
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	same(t, []string{"a", "b", "c", "d"}, readAll(t, l, 0))
}

func TestLazyRecordsAreWrittenInTime(t *testing.T) {
	l := open(t, wal.Options{Dir: t.TempDir(), SyncEvery: time.Millisecond})
	appendAll(t, l, true, "a")
	select {
	case <-l.Changed():
	case <-t.Context().Done():
	}
	same(t, []string{"a"}, readAll(t, l, 0))
}

func TestTornEndIsCut(t *testing.T) {
	dir := t.TempDir()
	l := open(t, wal.Options{Dir: dir})
	ends := appendAll(t, l, false, numbered(5, 30)...)
	whole, err := os.ReadFile(segments(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	header := len(whole) - int(ends[4])
	for n := range len(whole) + 1 {
		kept := 0
		for kept < 5 && header+int(ends[kept]) <= n {
			kept++
		}
		cut := t.TempDir()
		if err := os.WriteFile(filepath.Join(cut, filepath.Base(segments(t, dir)[0])), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := wal.Open(wal.Options{Dir: cut, SyncEvery: never})
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		appendAll(t, again, false, "next")
		same(t, append(numbered(5, 30)[:kept:kept], "next"), readAll(t, again, 0))
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnsyncedEndMayBeTornAnywhere(t *testing.T) {
	dir := t.TempDir()
	l := open(t, wal.Options{Dir: dir})
	appendAll(t, l, false, "synced")
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	lost := appendAll(t, l, false, "lost", "beyond")
	crashed := copyDir(t, dir)
	flip(t, segments(t, crashed)[0], int64(24+lost[0])-1)
	again := open(t, wal.Options{Dir: crashed})
	same(t, []string{"synced"}, readAll(t, again, 0))
	if again.Torn() == 0 {
		t.Error("the cut is not told")
	}
}

func TestDamageIsNeverSkipped(t *testing.T) {
	dir := t.TempDir()
	l := open(t, wal.Options{Dir: dir, SegmentBytes: 200})
	for _, rec := range numbered(12, 30) {
		appendAll(t, l, false, rec)
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	files := segments(t, dir)
	if len(files) < 3 {
		t.Fatalf("%d segments", len(files))
	}
	expect := func(t *testing.T, damaged, file string) {
		t.Helper()
		_, err := wal.Open(wal.Options{Dir: damaged, SyncEvery: never})
		if !errors.Is(err, wal.ErrCorrupt) || !strings.Contains(err.Error(), filepath.Base(file)) {
			t.Fatalf("got %v, want ErrCorrupt naming %s", err, filepath.Base(file))
		}
	}
	t.Run("byte of an early file", func(t *testing.T) {
		size := fileSize(t, files[0])
		for at := range size {
			damaged := copyDir(t, dir)
			flip(t, filepath.Join(damaged, filepath.Base(files[0])), at)
			if at >= 20 && at < 24 {
				continue // reserved bytes of the header, compared too
			}
			expect(t, damaged, files[0])
		}
	})
	t.Run("byte of the last file, a synced record behind it", func(t *testing.T) {
		last := files[len(files)-1]
		if fileSize(t, last) < 24+2*52 {
			t.Fatalf("last file holds too little")
		}
		for at := int64(0); at < 24+52; at++ {
			damaged := copyDir(t, dir)
			flip(t, filepath.Join(damaged, filepath.Base(last)), at)
			expect(t, damaged, last)
		}
	})
	t.Run("file missing", func(t *testing.T) {
		damaged := copyDir(t, dir)
		if err := os.Remove(filepath.Join(damaged, filepath.Base(files[1]))); err != nil {
			t.Fatal(err)
		}
		expect(t, damaged, files[2])
	})
	t.Run("early file cut", func(t *testing.T) {
		damaged := copyDir(t, dir)
		if err := os.Truncate(filepath.Join(damaged, filepath.Base(files[0])), fileSize(t, files[0])-1); err != nil {
			t.Fatal(err)
		}
		expect(t, damaged, files[0])
	})
	t.Run("while reading", func(t *testing.T) {
		flip(t, files[1], 60)
		defer flip(t, files[1], 60)
		r := l.NewReader(0)
		defer r.Close()
		var err error
		for err == nil {
			_, _, _, err = r.Next()
		}
		if !errors.Is(err, wal.ErrCorrupt) || !strings.Contains(err.Error(), files[1]) {
			t.Fatal(err)
		}
	})
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func TestTrimKeepsWhatIsNotDone(t *testing.T) {
	dir := t.TempDir()
	l := open(t, wal.Options{Dir: dir, SegmentBytes: 1 << 10})
	want := numbered(100, 100)
	at := appendAll(t, l, false, want...)
	before := len(segments(t, dir))
	if err := l.Trim(at[49]); err != nil {
		t.Fatal(err)
	}
	if n := len(segments(t, dir)); n >= before {
		t.Errorf("%d files, %d before", n, before)
	}
	same(t, want[50:], readAll(t, l, at[49]))
	if first, _ := l.Bounds(); first > at[49] {
		t.Errorf("trimmed to %d, asked for %d", first, at[49])
	}
	again := open(t, wal.Options{Dir: copyDir(t, dir)})
	same(t, want[50:], readAll(t, again, at[49]))
}

// A disk that is full for a while loses nothing that was accepted, and what is
// accepted afterwards is readable.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, "64k")
	l := open(t, wal.Options{Dir: filepath.Join(dir, "log"), SegmentBytes: 8 << 10})
	var want []string
	var full error
	for i := 0; full == nil; i++ {
		rec := fmt.Sprintf("%06d%s", i, strings.Repeat("y", 777))
		if _, full = l.Append([]byte(rec), false); full == nil {
			want = append(want, rec)
		}
	}
	if !errors.Is(full, unix.ENOSPC) {
		t.Fatal(full)
	}
	if _, end := l.Bounds(); l.Trim(end/2) != nil {
		t.Fatal("trim")
	}
	appendAll(t, l, false, "after")
	got := readAll(t, l, first(l))
	same(t, append(want, "after")[len(want)+1-len(got):], got)
}

// Those who append at the same time share a write, and its failure: each of
// them is told, and what one was told of is what is in the log.
func TestFullDiskOfMany(t *testing.T) {
	dir := smallDisk(t, "256k")
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 128<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, wal.Options{Dir: filepath.Join(dir, "log"), SyncEvery: time.Hour})
	const writers = 8
	accepted := make([][]string, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range 1000 {
				rec := fmt.Sprintf("%d %d %s", w, i, strings.Repeat("z", 100))
				if _, err := l.Append([]byte(rec), i%3 == 2); err == nil {
					accepted[w] = append(accepted[w], rec)
				} else if !errors.Is(err, unix.ENOSPC) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	got := make([][]string, writers)
	for _, rec := range readAll(t, l, first(l)) {
		w := rec[0] - '0'
		got[w] = append(got[w], rec)
	}
	refused := 0
	for w := range writers {
		refused += 1000 - len(accepted[w])
		same(t, accepted[w], got[w])
	}
	if refused == 0 {
		t.Error("the disk was never full")
	}
}

// smallDisk is a folder on a file system of that size.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("this test mounts a small file system and needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func first(l *wal.Log) wal.LSN { f, _ := l.Bounds(); return f }

func TestConcurrentAppendAndRead(t *testing.T) {
	l := open(t, wal.Options{Dir: t.TempDir(), SegmentBytes: 32 << 10, SyncEvery: time.Millisecond})
	const writers, each = 4, 500
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				lsn, err := l.Append(fmt.Appendf(nil, "%d %d", w, i), i%2 == 0)
				if err == nil && i%100 == 0 {
					err = l.SyncTo(lsn)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	next := [writers]int{}
	r := l.NewReader(0)
	defer r.Close()
	for n := 0; n < writers*each; {
		rec, _, _, err := r.Next()
		if errors.Is(err, io.EOF) {
			<-l.Changed()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var w, i int
		if _, err := fmt.Sscanf(string(rec), "%d %d", &w, &i); err != nil || next[w] != i {
			t.Fatalf("%q, writer %d should be at %d", rec, w, next[w])
		}
		next[w]++
		n++
	}
	wg.Wait()
}

func TestOneProcessOnly(t *testing.T) {
	dir := t.TempDir()
	open(t, wal.Options{Dir: dir})
	if _, err := wal.Open(wal.Options{Dir: dir}); !errors.Is(err, wal.ErrLocked) {
		t.Fatal(err)
	}
}

func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	l := open(f, wal.Options{Dir: dir})
	appendAll(f, l, false, "one", "two", "three")
	seed, err := os.ReadFile(segments(f, dir)[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(seed[:len(seed)-1])
	f.Add(bytes.Repeat(seed, 2))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "00000000000000000000.seg"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := wal.Open(wal.Options{Dir: dir, SyncEvery: never})
		if err != nil {
			if !errors.Is(err, wal.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		defer l.Close()
		before := readAll(t, l, 0)
		appendAll(t, l, false, "next")
		same(t, append(before, "next"), readAll(t, l, 0))
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, lazy := range []bool{false, true} {
		b.Run(fmt.Sprintf("lazy=%v", lazy), func(b *testing.B) {
			l := open(b, wal.Options{Dir: b.TempDir(), SyncEvery: 100 * time.Millisecond})
			rec := bytes.Repeat([]byte("x"), 350)
			b.SetBytes(350)
			for b.Loop() {
				if _, err := l.Append(rec, lazy); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
