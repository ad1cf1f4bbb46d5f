package secretfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chaperone.dev/chaperone/internal/credential/secretfile"
)

func TestLine(t *testing.T) {
	tests := []struct {
		name, content string
		mode          os.FileMode
		uid           int
		line, err     string
	}{
		{"a line", " s p \n", 0o600, 0, " s p ", ""},
		{"a line of Windows", "secret\r\n", 0o640, 0, "secret", ""},
		{"no newline", "secret", 0o400, 0, "secret", ""},
		{"two lines", "one\ntwo\n", 0o600, 0, "", "must hold one line"},
		{"a NUL", "one\x00two", 0o600, 0, "", "must hold one line"},
		{"empty", "\n", 0o600, 0, "", "it is empty"},
		{"readable by all", "secret", 0o644, 0, "", "has mode 0644, which lets others at it"},
		{"writable by the group", "secret", 0o660, 0, "", "has mode 0660"},
		{"somebody else's", "secret", 0o600, 12345, "", "belongs to uid 12345"},
		{"too long", strings.Repeat("s", 65<<10), 0o600, 0, "", "is longer than"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(path, []byte(test.content), test.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, test.mode); err != nil {
				t.Fatal(err)
			}
			if test.uid != 0 {
				if err := os.Chown(path, test.uid, 0); err != nil {
					t.Skip("files can't be given away here:", err)
				}
			}
			line, err := secretfile.Line(path)
			if test.err == "" && (err != nil || line != test.line) {
				t.Errorf("got %q, %v", line, err)
			}
			if test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("got %q, %v, want an error that says %q", line, err, test.err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") && !strings.Contains(path, "secret") {
				t.Errorf("the error shows the content: %v", err)
			}
		})
	}
	if _, err := secretfile.Line(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a folder: %v", err)
	}
	if _, err := secretfile.Line("/nonexistent"); !os.IsNotExist(err) {
		t.Errorf("no file: %v", err)
	}
}
