package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// module is the suite's; its version is that of our go.mod.
const module = "github.com/jackc/pgx/v5"

// packageTimeout bounds the tests of one package.
const packageTimeout = 10 * time.Minute

// suite is the built tests of the module: a copy of it with a go.mod of its
// own, and beside each package the test binary.
type suite struct {
	dir  string
	only string
	log  io.Writer
}

// testBinary is the name of a package's built tests, in its folder.
const testBinary = "chaperone-compat.test"

func build(ctx context.Context) (_ *suite, err error) {
	out, err := goCommand(ctx, "", "list", "-m", "-json", module)
	if err != nil {
		return nil, err
	}
	var found struct{ Dir, Version string }
	if err := json.Unmarshal(out, &found); err != nil {
		return nil, err
	}
	s := &suite{}
	if s.dir, err = os.MkdirTemp("", "chaperone-compat-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(s.dir)
		}
	}()
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return nil, err
	}
	if err := copyModule(found.Dir, s.dir); err != nil {
		return nil, err
	}
	packages, err := goCommand(ctx, s.dir, "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}", "./...")
	if err != nil {
		return nil, err
	}
	fmt.Printf("building the tests of %s %s\n", module, found.Version)
	for dir := range strings.FieldsSeq(string(packages)) {
		if _, err := goCommand(ctx, dir, "test", "-c", "-o", filepath.Join(dir, testBinary), "."); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	if dir == "" {
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly")
	}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, complaint.Bytes())
	}
	return out, nil
}

// copyModule copies a module out of the cache, where nothing can be written.
func copyModule(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), data, 0o644)
	})
}

// temporary is what differs from run to run in the names of subtests.
var temporary = regexp.MustCompile(`\d{6,}/\d+`)

// outcomes are pass, fail or skip, by package and test.
type outcomes map[string]string

// run runs all tests. wrap makes a planner's command of an ordinary one.
func (s *suite) run(ctx context.Context, name string, environment []string, wrap func(...string) []string, more ...string) (outcomes, error) {
	binaries, err := s.binaries()
	if err != nil {
		return nil, err
	}
	all := outcomes{}
	for _, binary := range binaries {
		pkg, err := filepath.Rel(s.dir, filepath.Dir(binary))
		if err != nil {
			return nil, err
		}
		start := time.Now()
		got, err := s.runPackage(ctx, binary, append(environment, more...), wrap)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", pkg, name, err)
		}
		for test, outcome := range got {
			all[strings.TrimPrefix(pkg+".", "..")+temporary.ReplaceAllString(test, "…")] = outcome
		}
		passed, failed, skipped := got.count()
		fmt.Printf("%-8s %-24s %4d pass %3d fail %3d skip  %.0fs\n", name, pkg, passed, failed, skipped, time.Since(start).Seconds())
	}
	return all, nil
}

func (s *suite) binaries() ([]string, error) {
	var list []string
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == testBinary {
			list = append(list, path)
		}
		return err
	})
	return list, err
}

// runPackage runs one test binary in its folder, as go test does.
func (s *suite) runPackage(ctx context.Context, binary string, environment []string, wrap func(...string) []string) (outcomes, error) {
	ctx, cancel := context.WithTimeout(ctx, packageTimeout)
	defer cancel()
	args := []string{binary, "-test.v=test2json", "-test.timeout=" + packageTimeout.String(), "-test.run=" + s.only}
	if wrap != nil {
		args = wrap(args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = filepath.Dir(binary)
	cmd.Env = append(os.Environ(), environment...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	failed := cmd.Run()
	var status *exec.ExitError
	if failed != nil && !errors.As(failed, &status) {
		return nil, failed
	}
	s.log.Write(said.Bytes())
	got, err := s.parse(ctx, &said)
	if err != nil {
		return nil, err
	}
	if len(got) == 0 && failed != nil {
		return nil, fmt.Errorf("no test ran: %w\n%s", failed, said.Bytes())
	}
	return got, nil
}

// parse reads a test binary's output, by the tool that go test uses.
func (s *suite) parse(ctx context.Context, said *bytes.Buffer) (outcomes, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json")
	cmd.Stdin = said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go tool test2json: %w", err)
	}
	got := outcomes{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var event struct{ Action, Test string }
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return nil, err
		}
		switch event.Action {
		case "run":
			got[event.Test] = "fail" // unless it ends otherwise
		case "pass", "fail", "skip":
			if event.Test != "" {
				got[event.Test] = event.Action
			}
		}
	}
	return got, lines.Err()
}

func (o outcomes) count() (passed, failed, skipped int) {
	for _, outcome := range o {
		switch outcome {
		case "pass":
			passed++
		case "fail":
			failed++
		case "skip":
			skipped++
		}
	}
	return passed, failed, skipped
}

// locked lets several processes' logs be written by one at a time.
type locked struct {
	mu sync.Mutex
	to io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(p)
}
