package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEnvironmentReplaces(t *testing.T) {
	got := environment([]string{"A=1", "PGSSLROOTCERT=/mine", "B=2", "PGSSLROOTCERT=/twice"}, map[string]string{"PGSSLROOTCERT": "/node"})
	if want := []string{"A=1", "B=2", "PGSSLROOTCERT=/node"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTokenPath(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("token", []byte("a.b.c"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"": "", "token": filepath.Join(dir, "token"), dir + "/token": dir + "/token"} {
		if path, err := tokenPath(file); path != want || err != nil {
			t.Errorf("%q: %q, %v; want %q", file, path, err, want)
		}
	}
	for file, want := range map[string]string{"/no/such/file": "no such file", "/dev/null": "no regular file", dir: "no regular file"} {
		if path, err := tokenPath(file); err == nil || !strings.Contains(err.Error(), want) || path != "" {
			t.Errorf("%q: %q, %v; want %q", file, path, err, want)
		}
	}
}
