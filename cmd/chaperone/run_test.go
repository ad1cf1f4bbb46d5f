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

func TestReadToken(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if token, err := readToken(""); token != "" || err != nil {
		t.Errorf("no file: %q, %v", token, err)
	}
	if token, err := readToken(write(" a.b.c\n")); token != "a.b.c" || err != nil {
		t.Errorf("token %q, %v", token, err)
	}
	for name, test := range map[string]struct{ path, want string }{
		"missing": {"/no/such/file", "no such file"},
		"empty":   {write("\n"), "empty"},
		"long":    {write(strings.Repeat("x", maxToken+1)), "longer than"},
	} {
		token, err := readToken(test.path)
		if err == nil || !strings.Contains(err.Error(), test.want) || token != "" {
			t.Errorf("%s: %q, %v", name, token, err)
		}
	}
}
