package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func checkListenPort(ctx context.Context, s *subject) Result {
	port := s.node.ListenPort
	found := "port " + strconv.Itoa(port)
	taken, err := listeners(port)
	if err != nil {
		return unseen("who listens on "+found, err)
	}
	if len(taken) > 0 {
		if err := s.reachDaemon(ctx); err != nil {
			return fail(found, "it is used by "+strings.Join(taken, ", "), "stop that, or choose another listenPort in the Node document")
		}
		found += ", listening: " + strings.Join(taken, ", ")
	}
	inside, bounds, err := autobound(port)
	if err != nil {
		return unseen("the range of ports that clients are given", err)
	}
	if inside {
		return warn(found, fmt.Sprintf("it is in net.ipv4.ip_local_port_range (%s): a client may be given it before the daemon starts", bounds),
			fmt.Sprintf("sysctl -w net.ipv4.ip_local_reserved_ports=%d, or choose a listenPort outside of the range", port))
	}
	return ok(found + ", outside of the ports that clients are given")
}

// autobound tells whether the kernel gives a port to clients that ask for
// none, and the range of such ports.
func autobound(port int) (bool, string, error) {
	const folder = "/proc/sys/net/ipv4/"
	text, err := os.ReadFile(folder + "ip_local_port_range")
	if err != nil {
		return false, "", err
	}
	bounds := strings.Join(strings.Fields(string(text)), "-")
	if !inPortList(bounds, port) {
		return false, bounds, nil
	}
	reserved, err := os.ReadFile(folder + "ip_local_reserved_ports")
	if err != nil {
		return false, bounds, err
	}
	return !inPortList(strings.TrimSpace(string(reserved)), port), bounds, nil
}

// inPortList reads "7,100-200", the form of ip_local_reserved_ports.
func inPortList(list string, port int) bool {
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, err := strconv.Atoi(low)
		if err != nil {
			continue
		}
		if to, err := strconv.Atoi(high); err == nil && from <= port && port <= to {
			return true
		}
	}
	return false
}

// listening returns the sockets in state LISTEN on a port, by inode number.
func listening(port int) (map[string]string, error) {
	found := map[string]string{}
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/self/net/" + name)
		if name == "tcp6" && errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return nil, err
		}
		err = eachListener(f, func(address string, at int, inode string) {
			if at == port {
				found[inode] = net.JoinHostPort(address, strconv.Itoa(at))
			}
		})
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// eachListener reads a table of sockets (proc_pid_net(5), tcp and tcp6).
func eachListener(table io.Reader, f func(address string, port int, inode string)) error {
	const listen = "0A"
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != listen {
			continue
		}
		host, portText, _ := strings.Cut(fields[1], ":")
		port, err := strconv.ParseUint(portText, 16, 16)
		if err != nil {
			continue
		}
		f(hexAddress(host), int(port), fields[9])
	}
	return lines.Err()
}

// hexAddress reads an address of the table: words of four bytes, each in the
// machine's byte order, which is little-endian on all that we build for.
func hexAddress(text string) string {
	raw := make([]byte, 0, 16)
	for ; len(text) >= 8; text = text[8:] {
		word, err := strconv.ParseUint(text[:8], 16, 32)
		if err != nil {
			return "?"
		}
		raw = append(raw, byte(word), byte(word>>8), byte(word>>16), byte(word>>24))
	}
	addr, valid := netip.AddrFromSlice(raw)
	if !valid {
		return "?"
	}
	return addr.String()
}

// socketOwners finds the processes that hold sockets, where this one may see.
func socketOwners(inodes map[string]string) map[string]string {
	owners := map[string]string{}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return owners
	}
	for _, fd := range fds {
		name, err := os.Readlink(fd)
		if err != nil {
			continue
		}
		inode := strings.TrimSuffix(strings.TrimPrefix(name, "socket:["), "]")
		if _, wanted := inodes[inode]; !wanted || inode == name || owners[inode] != "" {
			continue
		}
		process := filepath.Dir(filepath.Dir(fd))
		owners[inode] = "process " + filepath.Base(process)
		if comm, err := os.ReadFile(filepath.Join(process, "comm")); err == nil {
			owners[inode] += " " + strings.TrimSpace(string(comm))
		}
	}
	return owners
}

func checkIPv6(context.Context, *subject) Result {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return warn("", "there is no interface lo: "+brief(err), "ip link set lo up")
	}
	addrs, err := lo.Addrs()
	if err != nil {
		return unseen("the addresses of lo", err)
	}
	if lo.Flags&net.FlagUp == 0 {
		return fail("", "lo is down, and the daemon listens there", "ip link set lo up")
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == netip.IPv6Loopback() {
			return ok("::1 is on lo")
		}
	}
	return warn("", "::1 is not on lo: planners' connections by IPv6 are refused, not diverted",
		"sysctl -w net.ipv6.conf.lo.disable_ipv6=0, if targets have IPv6 addresses")
}
