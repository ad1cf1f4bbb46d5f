package bypass

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The daemon's absence, and attacks on what it has left in the kernel.

func lifeRows() []row {
	const (
		gone = "what is pinned is the enforcement, and root of the host can remove it: chaperone run drops CAP_BPF and CAP_SYS_ADMIN; bpffs is not in a container"
	)
	return []row{
		{threat: 12, name: "daemon stopped", hope: "nobody is there to divert to", do: plain4, around: withoutDaemon((*daemon).stop), want: "refused"},
		{threat: 12, name: "daemon stopped, UDP", hope: "the same with a datagram", do: sendTo(v4), around: withoutDaemon((*daemon).stop), want: "refused"},
		{threat: 12, name: "daemon killed", hope: "kill -9", do: plain4, around: withoutDaemon((*daemon).kill), want: "refused"},
		{threat: 12, name: "daemon killed, IPv6", hope: "the same by IPv6", do: plain6, around: withoutDaemon((*daemon).kill), want: "refused"},
		{threat: 12, name: "daemon killed, UDP", hope: "the same with a datagram", do: sendTo(v4), around: withoutDaemon((*daemon).kill), want: "refused"},
		{threat: 12, name: "daemon killed, MPTCP", hope: "the same by MPTCP", do: mptcp(v4), around: withoutDaemon((*daemon).kill), want: "refused"},
		{threat: 12, name: "daemon restarted", hope: "the new one knows nothing of the planner", do: plain4, around: afterRestart, want: "diverted"},
		{threat: 12, name: "daemon killed and started, again and again", hope: "a moment between two of them", do: hammer, around: restarting, want: "diverted", control: "the plain ones are controlled"},
		{threat: 12, name: "new cgroup while the daemon is dead", hope: "nobody enrolls it", from: fromNew, do: plain4, around: withoutDaemon((*daemon).kill), want: "refused"},
		{threat: 12, name: "cgroup made again while the daemon is dead", hope: "the same path, with nothing attached", do: plain4, around: remade, want: "refused"},
		{threat: 12, name: "listener's port, bound while the daemon is dead", hope: "bind(2) and listen(2)", control: "there is no listener", do: func(aim) (answer, error) { return squat(addr("127.0.0.1")) }, around: withoutDaemon((*daemon).kill), want: "refused"},
		{threat: 12, name: "listener's port, taken from outside while the daemon is dead", hope: "planners are sent to somebody else", do: plain4, around: squatted, want: "refused"},
		{threat: 12, name: "pins removed while the daemon runs", hope: "unlink(2) in bpffs, as root", do: afterUnpin, around: restarted, want: "diverted"},
		{threat: 12, name: "pins removed while the daemon is dead", hope: "the same, and nobody else holds the links", do: afterUnpin, around: withoutDaemon((*daemon).kill), want: "refused", open: gone, closers: []string{asRun}},
		{threat: 12, name: "links detached", hope: "BPF_LINK_DETACH, with CAP_BPF", do: afterDetach, around: mended, want: "refused", open: gone, closers: []string{asRun}},
	}
}

// dnsRows: that a target is known by its address makes names irrelevant here.
func dnsRows() []row {
	return []row{
		{threat: 13, name: "hard-coded address", hope: "no name is asked for", do: plain4, want: "diverted"},
		{threat: 13, name: "hard-coded address, nobody's list has it", hope: "an address that no answer has named", do: func(a aim) (answer, error) { return dial(a.Alias4, a.Port) }, want: "diverted"},
	}
}

func withoutDaemon(end func(*daemon, testing.TB)) func(*world, *testing.T, string, func() answer) answer {
	return func(w *world, t *testing.T, _ string, do func() answer) answer {
		end(w.daemon, t)
		defer w.restart(t)
		return do()
	}
}

func afterRestart(w *world, t *testing.T, _ string, do func() answer) answer {
	w.daemon.kill(t)
	w.restart(t)
	return do()
}

// mended lets the next daemon repair what the attack has done.
func mended(w *world, t *testing.T, _ string, do func() answer) answer {
	got := do()
	w.daemon.stop(t)
	w.restart(t)
	return got
}

// restarted does so too, after it was told of the attack.
func restarted(w *world, t *testing.T, _ string, do func() answer) answer {
	got := do()
	w.early = w.tell(t)
	w.daemon.stop(t)
	w.restart(t)
	return got
}

func restarting(w *world, t *testing.T, _ string, do func() answer) answer {
	var got answer
	var attack sync.WaitGroup
	attack.Go(func() { got = do() })
	began := time.Now()
	for n := 0; n < 10 || time.Since(began) < *killFor; n++ {
		w.daemon.kill(t)
		// Some are killed while they start, at all points of that.
		if n%2 == 1 {
			w.stumble(t, time.Duration(n%20)*25*time.Millisecond)
		}
		w.restart(t)
	}
	if err := os.WriteFile(w.stop, nil, 0o644); err != nil {
		t.Error(err)
	}
	attack.Wait()
	return got
}

// hammer connects and sends datagrams, several times at once, until the file Stop is
// there, and once more.
func hammer(a aim) (answer, error) {
	var (
		got = answer{Counts: map[string]int{}}
		mu  sync.Mutex
		all sync.WaitGroup
	)
	for n := range 4 {
		all.Go(func() {
			dial, send := plain4, sendTo(v4)
			if n%2 == 1 {
				dial, send = plain6, sendTo(v6)
			}
			for last := false; ; {
				one, _ := dial(a)
				_, err := send(a)
				mu.Lock()
				got.count(one, asked(one.Asked))
				if err == nil {
					got.Counts["wrong"]++
				}
				mu.Unlock()
				if last {
					return
				}
				last = exists(a.Stop)
				if runtime.NumCPU() == 1 {
					// Without a pause it would keep the daemon from starting, and find no gap.
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	all.Wait()
	return got, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func remade(w *world, t *testing.T, job string, do func() answer) answer {
	w.daemon.kill(t)
	defer w.restart(t)
	w.removeCgroup(t, job)
	if err := os.Mkdir(job, 0o755); err != nil {
		t.Fatal(err)
	}
	return do()
}

func squatted(w *world, t *testing.T, _ string, do func() answer) answer {
	w.daemon.kill(t)
	defer w.restart(t)
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", listenerPort))
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "REAL squatter")
			conn.Close()
		}
	})
	defer serving.Wait()
	defer l.Close()
	return do()
}

// pinnedLinks are where the daemon keeps them, found as an attacker would.
func pinnedLinks(a aim) ([]string, error) {
	var links []string
	err := filepath.WalkDir(a.Pins, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if l, err := link.LoadPinnedLink(path, nil); err == nil {
			l.Close()
			links = append(links, path)
		}
		return nil
	})
	return links, err
}

func afterUnpin(a aim) (answer, error) {
	links, err := pinnedLinks(a)
	if err != nil {
		return answer{}, err
	}
	if a.Port != target.Port {
		return plain4(a) // the control harms nobody
	}
	for _, pin := range links {
		if err := unix.Unlink(pin); err != nil {
			return answer{}, step("unlink", err)
		}
	}
	removeFilters("n-db")
	return insist(a)
}

func afterDetach(a aim) (answer, error) {
	links, err := pinnedLinks(a)
	if err != nil {
		return answer{}, err
	}
	if a.Port != target.Port {
		return plain4(a) // the control harms nobody
	}
	for _, pin := range links {
		l, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			return answer{}, step("open a pinned link", err)
		}
		// Some kinds of link only end with the last that holds them.
		if err := l.Detach(); err != nil && !errors.Is(err, ebpf.ErrNotSupported) {
			return answer{}, step("detach", err)
		}
		l.Close()
	}
	removeFilters("n-db")
	return insist(a)
}

// removeFilters removes the filters of a device on kernels whose filters are no links.
func removeFilters(device string) {
	index, err := deviceIndex(device)
	if err != nil {
		return
	}
	// Where there are none there is nothing to remove.
	_ = netlink.QdiscDel(&netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}})
}

// insist tries for a while, since the kernel lets go of links when it likes to.
func insist(a aim) (answer, error) {
	for end := time.Now().Add(time.Duration(patience) * time.Millisecond); ; {
		got, err := plain4(a)
		if got.reached() || time.Now().After(end) {
			return got, err
		}
	}
}
