package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/netns"
	"chaperone.dev/chaperone/internal/workload"
)

// maxToken bounds a job's token, in bytes.
const maxToken = 16 << 10

// Identify implements [session.Identifier]: it says who a job acts for. One of
// "chaperone run" proved that at its start; another one by the token that its Workload
// document tells of, in the file system that the job sees, read when it is needed and
// again when it has expired.
func (n *node) Identify(ctx context.Context, job workload.Job) (workload.Job, error) {
	if job.Principal.Subject != "" && (job.Principal.Expires.IsZero() || time.Now().Before(job.Principal.Expires)) {
		return job, nil
	}
	set := n.documents.Load()
	document := set.Workload(job.Workload)
	if job.Kind == workload.KindRun || job.Kind == "" || document == nil || document.Spec.Identity == nil {
		if job.Principal.Subject == "" {
			return job, errors.New("the job has no identity")
		}
		return job, fmt.Errorf("its identity expired at %s", job.Principal.Expires.Format(time.RFC3339))
	}
	token, err := tokenOf(job, document.Spec.Identity.TokenFile)
	if err != nil {
		return job, err
	}
	verifier, err := n.identities.verifier(set, document.Spec.Identity.Issuer)
	if err != nil {
		return job, err
	}
	principal, err := verifier.Verify(ctx, token, document.Spec.Identity.Audience)
	if err != nil {
		return job, err
	}
	return n.jobs().Identify(job, principal), nil
}

// tokenOf reads a file as the job's processes see it.
func tokenOf(job workload.Job, file string) (string, error) {
	pids, err := netns.Processes(job.Cgroup)
	if err != nil {
		return "", err
	}
	err = errors.New("the job has no process")
	for _, pid := range pids {
		var token string
		if token, err = tokenSeenBy(pid, file); err == nil {
			return token, nil
		}
	}
	return "", fmt.Errorf("the job's token %s: %w", file, err)
}

// tokenSeenBy opens the file below the process's root, whatever links lie on the way: a
// planner could make them lead elsewhere on the node.
func tokenSeenBy(pid int, file string) (string, error) {
	root, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, strings.TrimPrefix(file, "/"), &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("it is no regular file")
	}
	body, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(body))
	if token == "" || len(body) > maxToken {
		return "", fmt.Errorf("it is empty or longer than %d bytes", maxToken)
	}
	return token, nil
}
