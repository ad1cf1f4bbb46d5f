package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func checkState(_ context.Context, s *subject) Result {
	dir := s.opts.State
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		_, at, err := fileSystem(dir)
		if err != nil {
			return unseen(dir, err)
		}
		if !s.root {
			return skip(dir+" does not exist yet", asRoot)
		}
		if err := unix.Access(at, unix.W_OK); err != nil {
			return fail("", fmt.Sprintf("%s does not exist, and can't be made in %s: %s", dir, at, err), "make it with mode 700, or choose another --state")
		}
		return ok(dir + " is made when the daemon starts")
	case err != nil:
		return unseen(dir, err)
	case !info.IsDir():
		return fail("", dir+" is no folder", "choose another --state")
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fail(dir, fmt.Sprintf("its mode %04o lets others put files there", mode), "chmod 700 "+dir)
	} else if mode&0o077 != 0 {
		return warn(dir, fmt.Sprintf("its mode %04o lets others in", mode), "chmod 700 "+dir)
	}
	return ok(fmt.Sprintf("%s, mode %04o", dir, info.Mode().Perm()))
}

// checkJournal compares the journal with what it may become, and with the room
// that there is for that.
func checkJournal(_ context.Context, s *subject) Result {
	limit := int64(s.node.Journal.MaxBytes)
	dir := filepath.Join(s.opts.State, "journal")
	used, err := folderSize(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unseen(dir, err)
	}
	_, at, err := fileSystem(dir)
	if err != nil {
		return unseen(dir, err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return unseen(at, err)
	}
	free := int64(st.Bavail) * st.Bsize
	found := fmt.Sprintf("%s of %s, %s free on its disk", size(used), size(limit), size(free))
	const publish = "see \"nats\": the journal empties when NATS takes what it holds"
	switch {
	case used >= limit:
		return fail(found, "it is full, so new commands are refused", publish)
	case free < 1<<20:
		return fail(found, "the disk is full, so nothing more is recorded and new commands are refused", "make room on the disk of "+at)
	case free < limit-used:
		return warn(found, "the disk is full before the journal is", "make room on the disk of "+at+", or lower journal.maxBytes in the Node document")
	case used >= limit/5*4:
		return warn(found, "it is nearly full", publish)
	}
	return ok(found)
}

func folderSize(dir string) (int64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	var total int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
	}
	return total, nil
}
