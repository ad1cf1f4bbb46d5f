package node

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/session"
	"chaperone.dev/chaperone/internal/target"
	"chaperone.dev/chaperone/internal/version"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
)

// enforce puts a set's targets in force: names are resolved, and the kernel
// diverts their ports wherever planners use them.
func (n *node) enforce(ctx context.Context, set *policy.Set) error {
	ports, err := target.Ports(set.Targets)
	if err == nil && ports[dnsPort] != "" {
		err = fmt.Errorf("port %d can't be a target's: it is where planners' names are resolved", dnsPort)
	}
	if err := errors.Join(err, checkProfiles(set)); err != nil {
		return err
	}
	var others []string
	for _, document := range set.Workloads {
		others = append(others, namesOf(document)...)
	}
	if err := n.targets.Set(ctx, set.Targets, others); err != nil {
		return err
	}
	captures := []intercept.Capture{{Port: dnsPort, Action: intercept.Redirect, Protocol: session.ProtocolDNS, Datagrams: true}}
	for port := range ports {
		captures = append(captures, intercept.Capture{Port: port, Action: intercept.Redirect, Protocol: session.ProtocolPostgres})
	}
	if err := errors.Join(n.names.refresh(set), n.interceptor.Capture(captures)); err != nil {
		return err
	}
	for _, job := range n.jobs().Jobs() {
		if document := set.Workload(job.Workload); document != nil {
			if err := n.jobs().Restrict(job, profileOf(document)); err != nil {
				return err
			}
		}
	}
	return nil
}

// dnsPort is where names are resolved (RFC 1035 section 4.2).
const dnsPort = 53

// exemptEvery is how often cgroups that are exempt from the node's belt are looked for.
const exemptEvery = 10 * time.Second

// exempt lets the cgroups that the Node document lists reach targets, once they are
// there, until ctx is done.
func (n *node) exempt(ctx context.Context) error {
	look := time.NewTicker(exemptEvery)
	defer look.Stop()
	for {
		for _, name := range n.spec.Exempt {
			_, err := n.interceptor.Exempt(filepath.Join(n.interceptor.CgroupRoot(), name))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("exempt cgroup %s: %w", name, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

// announce tells the world that the node enforces, and by which key its
// recordings can be verified.
func (n *node) announce() {
	set := n.documents.Load()
	var kernel unix.Utsname
	_ = unix.Uname(&kernel)
	n.publish("", "", event.NodeStarted{
		Version: version.Version, Kernel: unix.ByteSliceToString(kernel.Release[:]),
		RecordingKey: base64.StdEncoding.EncodeToString(n.key.Public().(ed25519.PublicKey)),
	})
	n.publish("", "", event.PolicyLoaded{Revision: set.Revision, Documents: set.Counts()})
}

// reportBypasses publishes what the kernel stopped outside of the proxy.
func (n *node) reportBypasses(ctx context.Context) error {
	return n.interceptor.Bypasses(ctx, func(b intercept.Bypass) {
		if b.Outcome == intercept.RefusedClosed {
			n.sought(ctx, b)
			return
		}
		data := event.Bypass{Process: event.Process(b.Process), SocketType: b.Socket, Hook: b.Hook, Count: 1}
		if b.Destination.IsValid() {
			data.Destination = b.Destination.String()
		}
		if job, ok := n.jobs().ByCgroup(b.Workload); ok {
			data.Job = job.ID
		}
		n.log.Warn().Str("job", data.Job).Str("destination", data.Destination).Str("socket", data.SocketType).
			Str("hook", data.Hook).Uint32("pid", data.Process.PID).Msg("attempt to bypass the proxy stopped")
		n.publish("", data.Job, data)
	})
}

// untoldEvery is how often it is told how much was stopped and not told singly.
const untoldEvery = 10 * time.Second

// reportUntold publishes how many attempts were stopped, or refused, faster than is told
// singly, until ctx is done.
func (n *node) reportUntold(ctx context.Context) error {
	tick := time.NewTicker(untoldEvery)
	defer tick.Stop()
	stats, err := n.interceptor.Stats()
	if err != nil {
		return err
	}
	told := stats[intercept.Unreported]
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		n.sessions.TellUntold()
		if stats, err = n.interceptor.Stats(); err != nil {
			return err
		}
		if now := stats[intercept.Unreported]; now > told {
			n.log.Warn().Uint64("attempts", now-told).Msg("attempts to bypass the proxy were stopped faster than is told singly")
			n.publish("", "", event.Bypass{Hook: "any", SocketType: "any", Count: now - told})
			told = now
		}
	}
}

// keepPinned keeps the kernel programs pinned, so that they outlive this process.
func (n *node) keepPinned(ctx context.Context) error {
	return n.interceptor.KeepPinned(ctx, func(lost, failed error) {
		if failed == nil {
			n.log.Warn().Err(lost).Msg("the kernel programs were not pinned any more, and are again")
			return
		}
		n.log.Error().Err(failed).AnErr("lost", lost).Msg("the kernel programs can't be pinned again: enforcement ends when this daemon does; mount a bpffs where its pins are to be")
		n.publish("", "", event.NodeDegraded{
			Component: "interception",
			Message:   fmt.Sprintf("enforcement ends when the daemon does: %s; pinning again: %s", lost, failed),
		})
	})
}
