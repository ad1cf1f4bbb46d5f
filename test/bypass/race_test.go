package bypass

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Races and floods.

func raceRows() []row {
	return []row{
		{threat: 11, name: "two threads, one socket", hope: "both connect it, one to where it may", do: racing, want: "diverted"},
		{threat: 11, name: "address changed under connect", hope: "the port is rewritten while the kernel looks at it", do: changing, want: "diverted"},
		{threat: 11, name: "one source port, 200 times", hope: "the origin of an earlier connection", do: reusing, want: "diverted"},
		{threat: 11, name: "flood", hope: "2000 connections, to overflow a map", do: flooding, want: "diverted"},
	}
}

func racing(a aim) (answer, error) {
	got := answer{Counts: map[string]int{}}
	for n := range 100 {
		fd, err := open(a.V4)
		if err != nil {
			return answer{}, err
		}
		// Each begins in turn: on one processor it is often the order that decides.
		ports := []uint16{a.Port, freePort}
		if n%2 == 1 {
			slices.Reverse(ports)
		}
		var both sync.WaitGroup
		for _, port := range ports {
			both.Go(func() { unix.Connect(fd, sockaddr(a.V4, port)) })
		}
		both.Wait()
		got.race(fd, a)
	}
	return got, nil
}

// race counts what the peer says: the free port's server is no leak.
func (a answer) race(fd int, at aim) {
	defer unix.Close(fd)
	one, _ := hear(fd, answer{})
	free := netip.AddrPortFrom(at.V4, freePort).String()
	switch {
	case one.Said == "REAL "+free && one.Peer == free:
		a.Counts["free"]++
	case one.Said == "PROXY "+free: // never asked for
		a.Counts["wrong"]++
	default:
		a.count(one, netip.AddrPortFrom(at.V4, at.Port).String())
	}
}

func changing(a aim) (answer, error) {
	got := answer{Counts: map[string]int{}}
	// One word, of family and port, so that each write is whole.
	word := new([4]uint32)
	v4 := a.V4.As4()
	word[1] = binary.NativeEndian.Uint32(v4[:])
	form := func(port uint16) uint32 {
		b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
		return binary.NativeEndian.Uint32(binary.BigEndian.AppendUint16(b, port))
	}
	word[0] = form(a.Port)
	var stop atomic.Bool
	var flipping sync.WaitGroup
	flipping.Go(func() {
		for n := 0; !stop.Load(); n++ {
			atomic.StoreUint32(&word[0], form([]uint16{a.Port, freePort}[n%2]))
		}
	})
	for range 200 {
		fd, err := open(a.V4)
		if err != nil {
			return answer{}, err
		}
		connectWord(fd, word)
		got.race(fd, a)
	}
	stop.Store(true)
	flipping.Wait()
	return got, nil
}

// reusing goes to two destinations in turn, from one source port.
func reusing(a aim) (answer, error) {
	got := answer{Counts: map[string]int{}}
	for n := range 200 {
		to := []netip.Addr{a.V4, addr("127.0.0.1")}[n%2]
		fd, err := open(to)
		if err != nil {
			return answer{}, err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return answer{}, step("SO_REUSEADDR", err)
		}
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return answer{}, step("SO_LINGER", err)
		}
		if err := unix.Bind(fd, sockaddr(netip.IPv4Unspecified(), 45010)); err != nil {
			return answer{}, step("bind", err)
		}
		one, _ := connect(fd, to, a.Port)
		got.count(one, netip.AddrPortFrom(to, a.Port).String())
		unix.Close(fd)
	}
	return got, nil
}

func flooding(a aim) (answer, error) {
	const many = 2000
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: many + 100, Max: many + 100}); err != nil {
		return answer{}, step("RLIMIT_NOFILE", err)
	}
	got := answer{Counts: map[string]int{}}
	for range many {
		fd, err := socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return answer{}, err
		}
		unix.Connect(fd, sockaddr(a.V4, a.Port))
	}
	one, err := dial(a.V4, a.Port)
	got.count(one, netip.AddrPortFrom(a.V4, a.Port).String())
	return got, err
}

// connectWord is connect(2) with a sockaddr that another thread writes to.
func connectWord(fd int, word *[4]uint32) {
	unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(word)), unsafe.Sizeof(*word))
}
