package intercept

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// measure times connect(2): "address rounds".
func measure(args []string) (answer, error) {
	family, sa := sockaddr(netip.MustParseAddrPort(args[0]))
	rounds, err := strconv.Atoi(args[1])
	if err != nil {
		return answer{}, err
	}
	took := make([]float64, 0, rounds)
	var sum float64
	for range rounds {
		fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
		if err != nil {
			return answer{}, err
		}
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return answer{}, err
		}
		start := time.Now()
		err = unix.Connect(fd, sa)
		took = append(took, float64(time.Since(start)))
		sum += took[len(took)-1]
		if err != nil {
			return answer{}, err
		}
		unix.Close(fd)
	}
	slices.Sort(took)
	return answer{P50: took[rounds/2], Mean: sum / float64(rounds)}, nil
}

// hold opens many connections and counts how they went: "address count".
func hold(args []string) (answer, error) {
	family, sa := sockaddr(netip.MustParseAddrPort(args[0]))
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return answer{}, err
	}
	limit := unix.Rlimit{Cur: uint64(count) + 64, Max: uint64(count) + 64}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return answer{}, err
	}
	a := answer{Counts: map[string]int{}}
	for range count {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return a, err
		}
		if err := unix.Connect(fd, sa); err == nil || errors.Is(err, unix.EINPROGRESS) {
			a.Counts["started"]++
		} else {
			a.Counts["refused"]++
		}
	}
	return a, nil
}
