package bypass

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// judge counts what reaches the target and its twin: packets seen on the
// interfaces, and connections that don't travel in packets.
type judge struct {
	mu      sync.Mutex
	changed *sync.Cond
	hits    map[bool]int // by "is the target"; false is the twin
	last    map[bool]string
	marks   map[string]int // by tap
	row     int            // which one it is
	flows   map[string]int // TCP connections, by the row that has begun them
	taps    []*os.File
	reading sync.WaitGroup
}

// markPort is of datagrams that tell the taps that all before them was seen.
const markPort = 4001

func newJudge(t testing.TB, db string) *judge {
	t.Helper()
	j := &judge{hits: map[bool]int{}, last: map[bool]string{}, marks: map[string]int{}, flows: map[string]int{}}
	j.changed = sync.NewCond(&j.mu)
	t.Cleanup(func() {
		for _, f := range j.taps {
			f.Close()
		}
		j.reading.Wait()
	})
	// In the database's namespace whatever comes in counts, from tunnels too;
	// on the node what is sent to the database there, over lo.
	if err := errors.Join(inside(db, func() error { return j.tap("db", 0) }), j.tap("lo", 1)); err != nil {
		t.Fatalf("the judge's packet sockets: %v", err)
	}
	return j
}

func (j *judge) tap(name string, device int) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}), Ifindex: device}),
	); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	f := os.NewFile(uintptr(fd), name)
	j.taps = append(j.taps, f)
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	j.reading.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			var (
				n    int
				from unix.Sockaddr
				err  error
			)
			if raw.Read(func(fd uintptr) bool {
				n, from, err = unix.Recvfrom(int(fd), buf, 0)
				return !errors.Is(err, unix.EAGAIN)
			}) != nil {
				return // closed
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); err == nil && ok && ll.Pkttype != unix.PACKET_OUTGOING {
				j.look(name, buf[:n])
			}
		}
	})
	return nil
}

// look judges one packet, beginning at its IP header.
func (j *judge) look(tap string, b []byte) {
	p := dissect(b, 0)
	j.mu.Lock()
	defer j.mu.Unlock()
	if p.port == markPort {
		j.marks[tap]++
		j.changed.Broadcast()
		return
	}
	isTarget, hit := p.judge(tap)
	if !hit || j.isTail(p) {
		return
	}
	j.hits[isTarget]++
	j.last[isTarget] = fmt.Sprintf("protocol %d to %v port %d on %s, %d bytes", p.protocol, p.to, p.port, tap, len(b))
}

// isTail says that a packet belongs to a connection that an earlier row has made, and
// that the kernel is still about to end.
func (j *judge) isTail(p dissected) bool {
	if p.flow == "" {
		return false
	}
	row, known := j.flows[p.flow]
	if !known || p.syn {
		j.flows[p.flow] = j.row
		return false
	}
	return row != j.row
}

// nextRow begins another one.
func (j *judge) nextRow() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.row++
}

// record counts what came by other ways.
func (j *judge) record(isTarget bool, how string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.hits[isTarget]++
	j.last[isTarget] = how
}

func (j *judge) count(isTarget bool) (int, string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.hits[isTarget], j.last[isTarget]
}

// sync returns when all packets sent before were judged. Each CPU has a queue of its
// own behind a veth, so a marker goes through each.
func (j *judge) sync(t testing.TB) {
	t.Helper()
	j.mu.Lock()
	want := map[string]int{"db": j.marks["db"], "lo": j.marks["lo"]}
	j.mu.Unlock()
	done := make(chan error)
	sent := 0
	go func() {
		runtime.LockOSThread() // never unlocked: its affinity is changed
		done <- func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			for cpu := range runtime.NumCPU() {
				var set unix.CPUSet
				set.Set(cpu)
				if unix.SchedSetaffinity(0, &set) != nil {
					continue
				}
				for _, to := range []netip.Addr{hop4, addr("127.0.0.1")} {
					if err := unix.Sendto(fd, []byte("mark"), 0, &unix.SockaddrInet4{Addr: to.As4(), Port: markPort}); err != nil {
						return err
					}
				}
				sent++
			}
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Fatalf("mark the judge's taps: %v", err)
	}
	gaveUp := false
	timeout := time.AfterFunc(10*time.Second, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		gaveUp = true
		j.changed.Broadcast()
	})
	defer timeout.Stop()
	j.mu.Lock()
	defer j.mu.Unlock()
	for name, n := range want {
		for j.marks[name] < n+sent && !gaveUp {
			j.changed.Wait()
		}
		if j.marks[name] < n+sent {
			t.Fatalf("the judge's tap %s has seen %d of %d markers", name, j.marks[name]-n, sent)
		}
	}
}

// dissected is what the judge reads of a packet.
type dissected struct {
	to       []netip.Addr // the destination, and where source routes or tunnels lead on to
	protocol byte
	port     uint16 // 0: can't be told
	flow     string // of TCP: both ends
	syn      bool   // of TCP: it begins a connection
}

const vxlanPort = 4789

// dissect is generous: what it can't read counts as a hit for its address.
func dissect(b []byte, depth int) dissected {
	var p dissected
	if len(b) < 20 || depth > 4 {
		return p
	}
	var (
		payload []byte
		from    netip.Addr
		first   = true
	)
	switch b[0] >> 4 {
	case 4:
		header := int(b[0]&15) * 4
		if header < 20 || len(b) < header {
			return p
		}
		from = netip.AddrFrom4([4]byte(b[12:16]))
		p.to = append(p.to, netip.AddrFrom4([4]byte(b[16:20])))
		p.protocol = b[9]
		for at := 20; at+4 <= header; at++ { // addresses that options name, wherever they are
			p.to = append(p.to, netip.AddrFrom4([4]byte(b[at:at+4])))
		}
		first = binary.BigEndian.Uint16(b[6:])&0x1fff == 0
		payload = b[header:]
	case 6:
		if len(b) < 40 {
			return p
		}
		from = netip.AddrFrom16([16]byte(b[8:24]))
		p.to = append(p.to, netip.AddrFrom16([16]byte(b[24:40])))
		p.protocol, payload = b[6], b[40:]
		for slices.Contains([]byte{0, 43, 44, 60}, p.protocol) && len(payload) >= 8 {
			length := (int(payload[1]) + 1) * 8
			if p.protocol == unix.IPPROTO_FRAGMENT {
				length = 8
				first = first && binary.BigEndian.Uint16(payload[2:])&0xfff8 == 0
			}
			length = min(length, len(payload))
			if p.protocol == unix.IPPROTO_ROUTING {
				for at := 8; at+16 <= length; at += 8 {
					p.to = append(p.to, netip.AddrFrom16([16]byte(payload[at:at+16])))
				}
			}
			p.protocol, payload = payload[0], payload[length:]
		}
	}
	switch {
	case !first:
	case p.protocol == unix.IPPROTO_IPIP || p.protocol == unix.IPPROTO_IPV6:
		inner := dissect(payload, depth+1)
		p.to, p.port = append(p.to, inner.to...), inner.port
	case p.protocol == unix.IPPROTO_GRE && len(payload) > 4:
		inner := dissect(payload[4:], depth+1)
		p.to, p.port = append(p.to, inner.to...), inner.port
	case p.protocol == unix.IPPROTO_UDP && len(payload) > 30 && binary.BigEndian.Uint16(payload[2:]) == vxlanPort:
		inner := dissect(payload[30:], depth+1) // after the headers of UDP, VXLAN and Ethernet
		p.to, p.port = append(p.to, inner.to...), inner.port
	case slices.Contains([]byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP}, p.protocol) && len(payload) >= 4:
		p.port = binary.BigEndian.Uint16(payload[2:])
		if p.protocol == unix.IPPROTO_TCP && len(payload) >= 20 {
			p.flow = fmt.Sprint(from, p.to, binary.BigEndian.Uint16(payload), p.port)
			p.syn = payload[13]&2 != 0
		}
	}
	return p
}

// judge says whether the packet is a hit, and whose.
func (p dissected) judge(tap string) (isTarget, hit bool) {
	if tap == "lo" {
		return p.port == target.Port, p.port == target.Port || p.port == twin.Port
	}
	for _, side := range []place{target, twin} {
		for _, to := range p.to {
			listed := slices.Contains(side.addresses(), to)
			group := to.IsMulticast() || to == addr("198.51.100.255") || to == addr("255.255.255.255")
			if listed && (p.port == 0 || p.port == side.Port) || group && p.port == side.Port {
				return side.Port == target.Port, true
			}
		}
	}
	return false, false
}
