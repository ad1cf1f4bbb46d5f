package login

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needKeyring skips where the kernel refuses to keep a key, which is tried.
func needKeyring(t *testing.T) {
	t.Helper()
	id, err := unix.AddKey("user", "chaperone:test-probe", []byte("x"), unix.KEY_SPEC_USER_KEYRING)
	if err != nil {
		t.Skipf("add_key: %v: this kernel, or this container, keeps no keys for users", err)
	}
	_, _ = unix.KeyctlInt(unix.KEYCTL_INVALIDATE, id, 0, 0, 0)
}

func TestKeyring(t *testing.T) {
	needKeyring(t)
	var k Keyring
	ok(t, k.Check())
	name := "test:" + t.Name() + strconv.Itoa(os.Getpid())
	if _, err := k.Find(name); !errors.Is(err, ErrNone) {
		t.Errorf("before: %v", err)
	}
	if err := k.Forget(name); !errors.Is(err, ErrNone) {
		t.Errorf("forgetting what there is none of: %v", err)
	}
	long := strings.Repeat("x", 4<<10)
	for _, secret := range []string{"first", long, "second"} { // each in the place of the last
		ok(t, k.Keep(name, secret, time.Now().Add(time.Hour)))
		if got, err := k.Find(name); err != nil || got != secret {
			t.Errorf("found %d bytes, %v", len(got), err)
		}
	}
	// Any thread finds it: the one that kept it is nothing special.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := k.Find(name); err != nil || got != "second" {
				t.Errorf("elsewhere: %q, %v", got, err)
			}
		})
	}
	wg.Wait()
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, keyType, prefix+name, 0)
	ok(t, err)
	described, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, id)
	ok(t, err)
	if fields := strings.Split(described, ";"); fields[3] != "3f2f0000" {
		t.Errorf("the key's permissions are %s", fields[3])
	}
	ok(t, k.Forget(name))
	if _, err := k.Find(name); !errors.Is(err, ErrNone) {
		t.Errorf("after: %v", err)
	}
}

// TestKeyringElsewhere reads the secret from a login session that has a keyring of
// its own, to which the user's isn't linked.
func TestKeyringElsewhere(t *testing.T) {
	const asked = "CHAPERONE_TEST_KEYRING_NAME"
	if name := os.Getenv(asked); name != "" {
		// It is the child: it leaves the session's keyring that it inherited. A thread
		// does so for itself.
		runtime.LockOSThread()
		_, err := unix.KeyctlJoinSessionKeyring(name)
		ok(t, err)
		got, err := Keyring{}.Find(name)
		if err != nil || got != "the secret" {
			t.Fatalf("found %q, %v", got, err)
		}
		ok(t, Keyring{}.Keep(name, "another", time.Now().Add(time.Minute)))
		ok(t, Keyring{}.Forget(name))
		return
	}
	needKeyring(t)
	name := "test:" + t.Name() + strconv.Itoa(os.Getpid())
	ok(t, Keyring{}.Keep(name, "the secret", time.Now().Add(time.Minute)))
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKeyringElsewhere$")
	cmd.Env = append(os.Environ(), asked+"="+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := (Keyring{}).Find(name); !errors.Is(err, ErrNone) {
		t.Errorf("what the other session removed: %v", err)
	}
}

func TestKeyringForgetsInTime(t *testing.T) {
	needKeyring(t)
	name := "test:" + t.Name() + strconv.Itoa(os.Getpid())
	if err := (Keyring{}).Keep(name, "x", time.Now()); !errors.Is(err, ErrEnded) {
		t.Errorf("keeping what is over: %v", err)
	}
	ok(t, Keyring{}.Keep(name, "x", time.Now().Add(time.Second)))
	defer func() { _ = Keyring{}.Forget(name) }()
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		if _, err := (Keyring{}).Find(name); err != nil {
			if !errors.Is(err, ErrEnded) && !errors.Is(err, ErrNone) {
				t.Error(err)
			}
			tick.Stop()
			return
		}
		if t.Context().Err() != nil {
			t.Fatal("it is kept for ever")
		}
	}
}

func TestRefused(t *testing.T) {
	for errno, want := range map[unix.Errno]string{
		unix.EPERM: "as in many containers", unix.ENOSYS: "this kernel has none", unix.EDQUOT: "quota", unix.ENOMEM: "cannot allocate",
	} {
		if err := refused("add_key", errno); !errors.Is(err, ErrNoKeyring) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", errno, err)
		}
	}
}

func TestServerFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	path, err := ServerFile()
	ok(t, err)
	if want := filepath.Join(dir, "chaperone", "server.json"); path != want {
		t.Errorf("it is %s, want %s", path, want)
	}
	if _, err := LoadServer(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	want := Server{URL: "https://chaperone.corp.example", CAFile: "/etc/corp.pem"}
	ok(t, SaveServer(path, want))
	ok(t, SaveServer(path, want))
	if got, err := LoadServer(path); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	for _, bad := range []string{"", "{", `{"server":"http://corp.example"}`, `{"server":"https://u:p@corp.example"}`} {
		ok(t, os.WriteFile(path, []byte(bad), 0o600))
		if _, err := LoadServer(path); err == nil || !strings.Contains(err.Error(), "log in again") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	ok(t, ForgetServer(path))
	ok(t, ForgetServer(path))
}

func TestParseURL(t *testing.T) {
	for text, want := range map[string]string{
		"https://Chaperone.corp.example/": "https://chaperone.corp.example",
		"https://10.0.0.1:8443":           "https://10.0.0.1:8443",
		"http://127.0.0.1:8080":           "http://127.0.0.1:8080",
		"http://[::1]:8080":               "http://[::1]:8080",
		"http://10.0.0.1":                 "",
		"chaperone.corp.example":          "",
		"https://corp.example/path":       "",
		"https://corp.example?x=y":        "",
		"https://user@corp.example":       "",
		"unix:/run/x":                     "",
		"":                                "",
	} {
		if got, err := ParseURL(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func TestReadToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	for text, want := range map[string]string{
		"a.b.c\n": "a.b.c", " a.b.c ": "a.b.c", "": "", "\n": "", "a b": "", "a\nb": "", "a\x1b": "", strings.Repeat("x", maxToken+1): "",
	} {
		ok(t, os.WriteFile(path, []byte(text), 0o600))
		got, err := ReadToken(path)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%.20q: %.20q, %v", text, got, err)
		}
	}
	if _, err := ReadToken(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func FuzzExpires(f *testing.F) {
	for _, seed := range []string{"", "a.b.c", "e30.eyJleHAiOjF9.x", "e30.eyJleHAiOjFlOTl9.x", "e30.eyJleHAiOi0xfQ.x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if at, known := Expires(token); known {
			if _, err := at.MarshalText(); err != nil {
				t.Errorf("%q: %v", token, err)
			}
		}
	})
}
