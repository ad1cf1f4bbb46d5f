package workload

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chaperone.dev/chaperone/pkg/policy"
)

// A principal that was proved anew is the job's, over a restart too.
func TestIdentifyIsKept(t *testing.T) {
	cgroups, dir := folders(t)
	f, stop := start(t, cgroups, dir)
	process, release := planner(t, "exit 0")
	job := f.mustStart(t, "nightly", process)
	want := policy.Principal{Subject: "planner-7", Issuer: "corp-idp", Groups: []string{"night"}, Expires: time.Unix(2e9, 0).UTC(),
		Claims: map[string]any{"iat": 1.9e9, "tenant": "acme"}}
	now, err := f.Identify(job, want, "documents 2")
	if err != nil || now.Proofs != job.Proofs+1 || now.Proof != "documents 2" {
		t.Fatalf("%+v, %v", now, err)
	}
	stop()
	f, _ = start(t, cgroups, dir)
	again, ok := f.ByCgroup(job.CgroupID)
	if diff := cmp.Diff(now, again); !ok || diff != "" {
		t.Errorf("taken up as another: %s", diff)
	}
	if diff := cmp.Diff(want, again.Principal); diff != "" {
		t.Error(diff)
	}
	release()
	f.wantEnd(t, "nightly job_ended")
	if _, err := f.Identify(job, want, "documents 2"); !errors.Is(err, ErrGone) {
		t.Errorf("a job that has ended: %v", err)
	}
}
