package doctor

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/stage"
)

// A daemon that runs is found whole, and one that was killed is missed.
func TestBesideADaemon(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "chaperone")
	if out, err := exec.Command("go", "build", "-o", binary, "chaperone.dev/chaperone/cmd/chaperone").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s, err := stage.New(t.Context(), stage.Options{Binary: binary})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	daemon, err := s.Up(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{Config: s.ConfigDir(), State: s.Path("state")}
	const target = "target orders-db orders.db.internal:5432"
	names := []string{"ancestor", "other programs", "bpffs", "pins", "listen port", "documents", "secret files", "CA files", "state", "journal", "daemon", target}
	results := diagnose(t, opts, names...)
	for _, name := range names {
		want(t, results[name], OK, "", "")
	}
	want(t, results["pins"], OK, "to port 15001, attached and alive", "")
	want(t, results["listen port"], OK, "127.0.0.1:15001 (process ", "")

	if err := daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	results = diagnose(t, opts, "pins", "daemon", "listen port", target)
	want(t, results["pins"], Warn, "connections to targets are refused", "start the daemon")
	want(t, results["daemon"], Warn, "is gone", "chaperone up")
	want(t, results["listen port"], OK, "15001", "")
	want(t, results[target], OK, "TLS verified", "")
}
