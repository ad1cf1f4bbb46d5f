package documents

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/fsnotify/fsnotify"
	"go.yaml.in/yaml/v3"

	"chaperone.dev/chaperone/pkg/policy"
)

// documentFiles lists the folder's files of documents.
func documentFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || !isYAML(name) || isTest(name) {
			continue
		}
		names = append(names, name)
	}
	return names, nil
}

func isYAML(name string) bool {
	return strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")
}

func isTest(name string) bool {
	return strings.HasSuffix(name, "_test.yaml") || strings.HasSuffix(name, "_test.yml")
}

// settings are what has to be known of the Node document before all documents
// are loaded: the folder's may not load without those that were published.
type settings struct {
	Authority policy.AuthoritySpec `yaml:"authority"`
	Documents policy.DocumentsSpec `yaml:"documents"`
}

// settingsOf reads the Node document's settings. Whether they are right is found when all are
// loaded.
func settingsOf(files map[string][]byte) settings {
	for _, data := range files {
		decoder := yaml.NewDecoder(bytes.NewReader(data))
		for {
			var d struct {
				Kind string   `yaml:"kind"`
				Spec settings `yaml:"spec"`
			}
			err := decoder.Decode(&d)
			var other *yaml.TypeError
			if err != nil && !errors.As(err, &other) {
				break
			}
			if d.Kind == "Node" {
				return d.Spec
			}
		}
	}
	return settings{}
}

// digest names what was read, or why it could not be.
func digest(files map[string][]byte, err error) string {
	h := sha256.New()
	part := func(data []byte) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(data))))
		h.Write(data)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		part([]byte(name))
		part(files[name])
	}
	if err != nil {
		part([]byte(err.Error()))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// folderWatch tells when something in a folder may have changed.
type folderWatch struct {
	dir     string
	watcher *fsnotify.Watcher
	notices chan struct{}
	done    chan struct{}
	// rewatch asks the goroutine to watch the folder that is there now.
	rewatch chan struct{}
	seen    string // of missed
}

// watchFolder watches a folder, and the one above, in which it may be replaced.
func watchFolder(dir string) (*folderWatch, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("watching the documents' folder: %w", err)
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", dir, err)
	}
	w := &folderWatch{dir: dir, watcher: watcher, notices: make(chan struct{}, 1), done: make(chan struct{}), rewatch: make(chan struct{}, 1)}
	if err := errors.Join(watcher.Add(filepath.Dir(dir)), watcher.Add(dir)); err != nil {
		return nil, errors.Join(fmt.Errorf("watching %s: %w", dir, err), watcher.Close())
	}
	w.seen = signature(dir)
	go w.run()
	return w, nil
}

func (w *folderWatch) close() {
	_ = w.watcher.Close() // nothing is lost with it
	<-w.done
}

func (w *folderWatch) changed() <-chan struct{} { return w.notices }

func (w *folderWatch) run() {
	defer close(w.done)
	for {
		select {
		case e, ok := <-w.watcher.Events:
			if !ok {
				return
			}
			if filepath.Dir(e.Name) == w.dir {
				w.notify()
			}
			if e.Name == w.dir {
				w.again()
			}
		case _, ok := <-w.watcher.Errors:
			if !ok {
				return
			}
			w.again() // notices were lost
		case <-w.rewatch:
			w.again()
		}
	}
}

// again watches what has the folder's name now. One that is not there yet is
// noticed in the folder above.
func (w *folderWatch) again() {
	_ = w.watcher.Remove(w.dir)
	_ = w.watcher.Add(w.dir)
	w.notify()
}

func (w *folderWatch) notify() {
	select {
	case w.notices <- struct{}{}:
	default:
	}
}

// missed tells whether the folder looks otherwise than when it was asked before: a file that
// a link leads to, or a folder further above, may have been replaced without a notice.
func (w *folderWatch) missed() bool {
	now := signature(w.dir)
	if now == w.seen {
		return false
	}
	w.seen = now
	select {
	case w.rewatch <- struct{}{}:
	default:
	}
	return true
}

// signature is how a folder looks without its files being read.
func signature(dir string) string {
	var b strings.Builder
	look := func(path string) {
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintf(&b, "%s %v\n", path, err)
			return
		}
		inode := uint64(0)
		if sys, ok := info.Sys().(*syscall.Stat_t); ok {
			inode = sys.Ino
		}
		if info.IsDir() {
			fmt.Fprintf(&b, "%s %d\n", path, inode)
			return
		}
		fmt.Fprintf(&b, "%s %d %d %d\n", path, inode, info.Size(), info.ModTime().UnixNano())
	}
	look(dir)
	names, err := documentFiles(dir)
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	for _, name := range names {
		look(filepath.Join(dir, name))
	}
	return b.String()
}
