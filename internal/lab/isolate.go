package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespace is the small world that [Isolate] makes.
type Namespace struct {
	// Hosts are host names and the address of each. They become the whole of
	// /etc/hosts, beside localhost, and the addresses are added to lo.
	Hosts map[string]string
	// Addresses are further ones for lo.
	Addresses []string
}

// The environment variables of the re-execution: what to make, and, once it
// is made, which network namespace it was made in.
const (
	envNamespace = "CHAPERONE_LAB_NAMESPACE"
	envIsolated  = "CHAPERONE_LAB_ISOLATED"
)

// Isolate gives the current program its own network and mount namespaces by
// running it again inside of them, with the same arguments, environment and
// standard files. It is called first in main or TestMain. In the child it
// returns nil; in the parent it returns only what kept the child from
// starting, and otherwise exits with the child's code (128 and the signal's
// number, if one ended it). Signals are passed on.
//
// Inside, lo is up and is the only interface, bpffs at /sys/fs/bpf is a fresh one,
// and no mount reaches the outside. Processes, cgroups and files are still the
// machine's. It all vanishes with the last process inside. CAP_SYS_ADMIN is
// needed.
func Isolate(ns Namespace) error {
	if Isolated() {
		return nil
	}
	if spec, ok := os.LookupEnv(envNamespace); ok {
		var asked Namespace
		if err := json.Unmarshal([]byte(spec), &asked); err != nil {
			return fmt.Errorf("isolate: %s: %w", envNamespace, err)
		}
		return enter(asked)
	}
	for name, address := range ns.Hosts {
		if net.ParseIP(address) == nil {
			return fmt.Errorf("isolate: host %s: %q is no IP address", name, address)
		}
	}
	code, err := rerun(ns)
	if err != nil {
		return err
	}
	os.Exit(code)
	return nil // not reached
}

// Isolated says whether this process runs in namespaces that [Isolate] made,
// be it as the program that asked for them or as a child of that.
func Isolated() bool {
	inside := os.Getenv(envIsolated)
	return inside != "" && inside == networkNamespace()
}

// networkNamespace names the calling process's, as "net:[4026531840]".
func networkNamespace() string {
	name, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return ""
	}
	return name
}

// rerun runs this program again in new namespaces and returns its exit code.
func rerun(ns Namespace) (int, error) {
	spec, err := json.Marshal(ns)
	if err != nil {
		return 0, fmt.Errorf("isolate: %w", err)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), envNamespace+"="+string(spec))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	// The parent-death signal follows the thread that forked.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	if err := cmd.Start(); err != nil {
		if errors.Is(err, unix.EPERM) {
			return 0, fmt.Errorf("isolate: new namespaces need CAP_SYS_ADMIN, run as root: %w", err)
		}
		return 0, fmt.Errorf("isolate: %w", err)
	}
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		passSignals(cmd.Process, signals)
	}()
	err = cmd.Wait()
	signal.Stop(signals)
	close(signals)
	<-passed

	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("isolate: %w", err)
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// passSignals sends the child what the parent gets, until signals is closed.
func passSignals(child *os.Process, signals <-chan os.Signal) {
	for s := range signals {
		// A terminal's Ctrl-C and Ctrl-\ go to the whole foreground group, so
		// the child has it already, and a second one would cut its clean-up short.
		if (s == unix.SIGINT || s == unix.SIGQUIT) && inForeground() {
			continue
		}
		_ = child.Signal(s) // fails only when the child is gone
	}
}

// inForeground says whether our process group is the foreground one of the
// terminal that is our standard input.
func inForeground() bool {
	group, err := unix.IoctlGetInt(int(os.Stdin.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
