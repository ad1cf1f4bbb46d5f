package credential_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chaperone.dev/chaperone/internal/credential"
)

func TestLedgerKeepsEntriesAcrossOpenings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	ledger, err := credential.OpenLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	entry := func(id string) credential.Entry {
		return credential.Entry{
			ID: id, Kind: "postgresRole", Account: credential.Account{Name: "chaperone_x", AdminFile: "/admin.dsn", Heir: "rw"},
			Target: "db", Job: "j", Created: time.Now().UTC(), Expires: time.Now().Add(time.Hour).UTC(), State: credential.StateIssuing,
		}
	}
	first, second, third := entry("1"), entry("2"), entry("3")
	for _, e := range []credential.Entry{first, second, third} {
		if err := ledger.Put(e); err != nil {
			t.Fatal(err)
		}
	}
	second.State, second.Why = credential.StateRevoking, "job_ended"
	if err := errors.Join(ledger.Put(second), ledger.Delete("3"), ledger.Delete("never there")); err != nil {
		t.Fatal(err)
	}
	if _, err := credential.OpenLedger(path); !errors.Is(err, credential.ErrLedgerInUse) {
		t.Errorf("opened twice: %v, want ErrLedgerInUse", err)
	}
	if err := ledger.Close(); err != nil {
		t.Fatal(err)
	}
	ledger, err = credential.OpenLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	got, err := ledger.Entries()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]credential.Entry{first, second}, got); diff != "" {
		t.Error(diff)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v (%v), want 0600", info.Mode(), err)
	}
}

func TestLedgerRefusesAFileThatItCannotTrust(t *testing.T) {
	loose := filepath.Join(t.TempDir(), "loose.db")
	if err := os.WriteFile(loose, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(loose, 0o666); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken.db")
	if err := os.WriteFile(broken, []byte("this is no ledger, though it is long enough to be looked at"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{loose, broken, filepath.Join(t.TempDir(), "no", "folder.db")} {
		if ledger, err := credential.OpenLedger(path); err == nil {
			ledger.Close()
			t.Errorf("%s was opened", path)
		}
	}
}
