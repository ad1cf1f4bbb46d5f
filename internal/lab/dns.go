package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// DNSOptions say what name server to start.
type DNSOptions struct {
	// Listen are the addresses to listen on, at port 53. Required.
	Listen []string
	// Zone is the domain that it knows; it refuses all else. Required.
	Zone string
	// Records are lines of the zone's file, with names relative to Zone:
	// "orders.db A 10.20.0.5". They have a TTL of 0, unless they say another.
	Records []string
	// Log receives what the server says. May be nil.
	Log io.Writer
}

// DNS is a running Knot DNS (Debian's package knot). It dies with the process that
// started it.
type DNS struct {
	options DNSOptions
	dir     string
	cmd     *exec.Cmd
	log     *tail
	done    chan struct{} // closed when it is over
	err     error         // why, valid after done
	serial  int
}

// StartDNS starts a server and returns when it answers. ctx bounds the start, not the
// server's life.
func StartDNS(ctx context.Context, options DNSOptions) (_ *DNS, err error) {
	d := &DNS{options: options, log: &tail{next: options.Log}, done: make(chan struct{})}
	if d.dir, err = os.MkdirTemp("", "chaperone-lab-dns-"); err != nil {
		return nil, fmt.Errorf("DNS server's folder: %w", err)
	}
	if err := errors.Join(d.writeConfig(), d.writeZone(options.Records)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(d.dir))
	}
	if err := d.launch(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(d.dir))
	}
	if err := d.control(ctx, "zone-status", options.Zone); err != nil {
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, d.log), d.Stop(context.WithoutCancel(ctx)))
	}
	return d, nil
}

func (d *DNS) writeConfig() error {
	var text strings.Builder
	fmt.Fprintf(&text, "server:\n    rundir: %q\n    user: root\n", d.dir)
	for _, address := range d.options.Listen {
		fmt.Fprintf(&text, "    listen: %s@53\n", address)
	}
	fmt.Fprintf(&text, "log:\n  - target: stderr\n    any: warning\n")
	fmt.Fprintf(&text, "database:\n    storage: %q\n", d.dir)
	fmt.Fprintf(&text, "control:\n    listen: %q\n", d.socket())
	fmt.Fprintf(&text, "zone:\n  - domain: %s\n    file: %q\n", d.options.Zone, d.zoneFile())
	// The file is the whole truth, and never written by the server.
	fmt.Fprintf(&text, "    zonefile-load: whole\n    zonefile-sync: -1\n    journal-content: none\n")
	return os.WriteFile(filepath.Join(d.dir, "knot.conf"), []byte(text.String()), 0o600)
}

func (d *DNS) socket() string   { return filepath.Join(d.dir, "knot.sock") }
func (d *DNS) zoneFile() string { return filepath.Join(d.dir, "zone") }

func (d *DNS) writeZone(records []string) error {
	d.serial++
	text := fmt.Sprintf("$ORIGIN %s.\n$TTL 0\n@ SOA ns hostmaster %d 3600 600 86400 0\n@ NS ns\n%s\n",
		strings.TrimSuffix(d.options.Zone, "."), d.serial, strings.Join(records, "\n"))
	for _, address := range d.options.Listen {
		kind := "A"
		if strings.Contains(address, ":") {
			kind = "AAAA"
		}
		text += "ns " + kind + " " + address + "\n"
	}
	return os.WriteFile(d.zoneFile(), []byte(text), 0o600)
}

// launch starts the server on a thread of its own: see startProcess.
func (d *DNS) launch() error {
	path, err := exec.LookPath("knotd")
	if errors.Is(err, exec.ErrNotFound) {
		path, err = exec.LookPath("/usr/sbin/knotd")
	}
	if err != nil {
		return fmt.Errorf("DNS server: install Debian's package knot: %w", err)
	}
	d.cmd = exec.Command(path, "-c", filepath.Join(d.dir, "knot.conf"))
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := d.cmd.Start()
		started <- err
		if err == nil {
			d.err = d.cmd.Wait()
			close(d.done)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("DNS server: %w", err)
	}
	return nil
}

// control has knotc do something, which waits until the server is there.
func (d *DNS) control(ctx context.Context, words ...string) error {
	const pause = 20 * time.Millisecond
	for {
		cmd := exec.CommandContext(ctx, "knotc", append([]string{"-s", d.socket(), "-b"}, words...)...)
		out, err := cmd.CombinedOutput()
		if err == nil {
			return nil
		}
		err = fmt.Errorf("DNS server: knotc %s: %s: %w", strings.Join(words, " "), bytes.TrimSpace(out), err)
		if !bytes.Contains(out, []byte("failed to connect")) {
			return err
		}
		select {
		case <-d.done:
			return fmt.Errorf("DNS server ended: %w", d.err)
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// Set replaces the records. They are what is answered when it returns.
func (d *DNS) Set(ctx context.Context, records ...string) error {
	if err := d.writeZone(records); err != nil {
		return fmt.Errorf("DNS server: %w", err)
	}
	return d.control(ctx, "zone-reload", d.options.Zone)
}

// Stop ends the server and removes its folder.
func (d *DNS) Stop(ctx context.Context) error {
	// The error is that the process is over already, which done says too.
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
	case <-ctx.Done():
		_ = d.cmd.Process.Kill()
		<-d.done
	}
	return os.RemoveAll(d.dir)
}
