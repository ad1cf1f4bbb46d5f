package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/lab"
	"chaperone.dev/chaperone/internal/stage"
)

// home is where a planner is started. The zero value is where the tests are.
type home struct {
	net        *lab.Netns
	resolvConf string   // what its /etc/resolv.conf says; empty: what the tests' says
	as         []string // a command before "chaperone run", which becomes another user
}

// planner of nobody, who needs no password.
func nobody(net *lab.Netns) home {
	return home{net: net, as: []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME=/nonexistent"}}
}

// at is a command that runs as a planner job at home.
func (w *world) at(h home, name string, command ...string) *exec.Cmd {
	w.t.Helper()
	run := w.Planner(w.t.Context(), name, command...)
	words := append(h.as, run.Args...)
	if h.net != nil {
		words = append([]string{"nsenter", "--net=" + h.net.Path()}, words...)
	}
	if h.resolvConf != "" {
		file := w.file("resolv.conf", h.resolvConf)
		words = append([]string{"unshare", "--mount", "sh", "-c",
			`mount --bind ` + file + ` /etc/resolv.conf && exec "$@"`, "sh"}, words...)
	}
	cmd := exec.CommandContext(w.t.Context(), words[0], words[1:]...)
	cmd.Env, cmd.Dir = run.Env, "/"
	return cmd
}

// file makes a file that planners can read.
func (w *world) file(name, text string) string {
	w.t.Helper()
	f, err := os.CreateTemp(w.Dir, name+"-")
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		w.t.Fatal(err)
	}
	if err := f.Chmod(0o644); err != nil {
		w.t.Fatal(err)
	}
	return f.Name()
}

// cover puts another content in a file's place until the test ends.
func cover(t *testing.T, path, text string) {
	t.Helper()
	undo, err := lab.CoverFile(path, text)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := undo(); err != nil {
			t.Error(err)
		}
	})
}

// addAddresses gives the tests' namespace further addresses until the test ends.
func addAddresses(t *testing.T, addrs ...string) {
	t.Helper()
	for _, text := range addrs {
		undo, err := lab.AddAddress(netip.MustParseAddr(text))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := undo(); err != nil {
				t.Error(err)
			}
		})
	}
}

// newNetns makes a network namespace that is gone when the test ends.
func newNetns(t *testing.T, options lab.NetnsOptions) *lab.Netns {
	t.Helper()
	ns, err := lab.NewNetns(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// remote is a planner that does what a test asks it to, one thing after the other.
type remote struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// remote starts one as a planner job.
func (w *world) remote(h home, name string, before ...string) *remote {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	if h.as != nil {
		self = w.publicCopy(self)
	}
	return w.startRemote(w.at(h, name, append(before, self)...))
}

// publicCopy makes a copy of a program that every user may run.
func (w *world) publicCopy(program string) string {
	w.t.Helper()
	path := w.Path("client")
	if out, err := exec.CommandContext(w.t.Context(), "install", "-m", "0755", program, path).CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	return path
}

func (w *world) startRemote(cmd *exec.Cmd) *remote {
	w.t.Helper()
	cmd.Env = append(cmd.Env, clientVariable+"=remote", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = w.log
	r := &remote{t: w.t, cmd: cmd}
	var err error
	if r.in, err = cmd.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	r.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(r.end)
	return r
}

// end has the planner end, if it didn't before.
func (r *remote) end() {
	r.in.Close()
	kill := time.AfterFunc(10*time.Second, func() { r.cmd.Process.Kill() })
	defer kill.Stop()
	io.Copy(io.Discard, r.out)
	_ = r.cmd.Wait()
}

// try asks for something, and returns the answer, or what went wrong in the planner. It may be
// called from any goroutine, one at a time.
func (r *remote) try(words ...string) (string, error) {
	kill := time.AfterFunc(time.Minute, func() { r.cmd.Process.Kill() })
	defer kill.Stop()
	if _, err := fmt.Fprintln(r.in, strings.Join(words, " ")); err != nil {
		return "", err
	}
	line, err := r.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("the planner ended: %w", err)
	}
	verdict, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if verdict != "ok" {
		return "", errors.New(rest)
	}
	return rest, nil
}

// ask is try, for what has to work.
func (r *remote) ask(words ...string) string {
	r.t.Helper()
	answer, err := r.try(words...)
	if err != nil {
		r.t.Fatalf("%s: %v", strings.Join(words, " "), err)
	}
	return answer
}

// refused fails the test unless what is asked for fails with the error, such as "EPERM".
func (r *remote) refused(with string, words ...string) {
	r.t.Helper()
	answer, err := r.try(words...)
	if err == nil || !strings.HasPrefix(err.Error(), with+" ") {
		r.t.Fatalf("%s: got %q, %v; want %s", strings.Join(words, " "), answer, err, with)
	}
}

// remoteClient is the planner's side of remote.
func remoteClient(ctx context.Context) error {
	var held *pgx.Conn
	commands := map[string]func(context.Context, []string) (string, error){
		"env":    func(_ context.Context, args []string) (string, error) { return os.Getenv(args[0]), nil },
		"tcp":    remoteTCP,
		"udp":    remoteUDP,
		"lookup": remoteLookup,
		"dns":    remoteDNS,
		"serve":  remoteServe,
		"enter": func(_ context.Context, args []string) (string, error) {
			// This process goes on as another program, in the other namespace.
			self, err := os.Executable()
			if err != nil {
				return "", err
			}
			fmt.Println("ok entering")
			return "", syscall.Exec("/usr/bin/nsenter", []string{"nsenter", "--net=" + args[0], self}, os.Environ())
		},
		"open": func(ctx context.Context, args []string) (answer string, err error) {
			held, answer, err = remoteOpen(ctx, args)
			return answer, err
		},
		"close": func(ctx context.Context, _ []string) (string, error) { return "", held.Close(ctx) },
		"session": func(ctx context.Context, args []string) (string, error) {
			conn, answer, err := remoteOpen(ctx, args)
			if err != nil {
				return "", err
			}
			return answer, conn.Close(ctx)
		},
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		answer, err := commands[words[0]](ctx, words[1:])
		cancel()
		if err != nil {
			fmt.Println("error", errorName(err), strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Println("ok", answer)
	}
	return lines.Err()
}

// errorName is what a person would call the error.
func errorName(err error) string {
	var errno syscall.Errno
	var lookup *net.DNSError
	switch {
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return "NXDOMAIN"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "TIMEOUT"
	}
	return "OTHER"
}

// remoteTCP connects, and returns what the server says first.
func remoteTCP(ctx context.Context, args []string) (string, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", args[0])
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// remoteUDP sends a datagram: by a connected socket, or, as "udp ADDR unconnected", by one that isn't.
func remoteUDP(ctx context.Context, args []string) (string, error) {
	if len(args) > 1 {
		conn, err := net.ListenPacket("udp", ":0")
		if err != nil {
			return "", err
		}
		defer conn.Close()
		to, err := net.ResolveUDPAddr("udp", args[0])
		if err != nil {
			return "", err
		}
		_, err = conn.WriteTo([]byte("hello"), to)
		return "sent", err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "udp", args[0])
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_, err = conn.Write([]byte("hello"))
	return "sent", err
}

// remoteLookup asks as Go's own resolver does.
func remoteLookup(ctx context.Context, args []string) (string, error) {
	resolver := net.Resolver{PreferGo: true}
	addrs, err := resolver.LookupHost(ctx, args[0])
	return strings.Join(addrs, " "), err
}

// remoteDNS asks a server: "dns udp SERVER NAME", or tcp, or unconnected: by a socket that sends to
// anywhere, as some clients' does, and that shows who answers.
func remoteDNS(ctx context.Context, args []string) (string, error) {
	network, server := args[0], net.JoinHostPort(args[1], "53")
	question := new(dns.Msg).SetQuestion(dns.Fqdn(args[2]), dns.TypeA)
	var reply *dns.Msg
	var err error
	if network == "unconnected" {
		reply, err = askUnconnected(server, question)
	} else {
		client := dns.Client{Net: network, Timeout: 10 * time.Second}
		reply, _, err = client.ExchangeContext(ctx, question, server)
	}
	if err != nil {
		return "", err
	}
	answer := dns.RcodeToString[reply.Rcode]
	for _, rr := range reply.Answer {
		if a, ok := rr.(*dns.A); ok {
			answer += " " + a.A.String()
		}
	}
	return answer, nil
}

func askUnconnected(server string, question *dns.Msg) (*dns.Msg, error) {
	to, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	message, err := question.Pack()
	if err != nil {
		return nil, err
	}
	if _, err := conn.WriteToUDP(message, to); err != nil {
		return nil, err
	}
	buffer := make([]byte, dns.MaxMsgSize)
	n, from, err := conn.ReadFromUDP(buffer)
	if err != nil {
		return nil, err
	}
	if !from.IP.Equal(to.IP) || from.Port != to.Port {
		return nil, fmt.Errorf("%s was asked, and %s answered", to, from)
	}
	reply := new(dns.Msg)
	return reply, reply.Unpack(buffer[:n])
}

// remoteServe greets who connects, until the planner ends.
func remoteServe(ctx context.Context, args []string) (string, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", args[0])
	if err != nil {
		return "", err
	}
	go greet(l, "planner") // ends with the process
	return l.Addr().String(), nil
}

// greet tells each client a word until the listener is closed.
func greet(l net.Listener, word string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprintln(conn, word)
		conn.Close()
	}
}

// remoteOpen opens a session. Its arguments are keywords of a connection string, and "from", an
// address and port to connect from. It returns who the session is, and the server's
// address.
func remoteOpen(ctx context.Context, args []string) (*pgx.Conn, string, error) {
	text := stage.ConnString
	var from net.Addr
	for _, arg := range args {
		address, ok := strings.CutPrefix(arg, "from=")
		if !ok {
			text += " " + arg
			continue
		}
		from = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))
	}
	config, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, "", err
	}
	config.DialFunc = (&net.Dialer{LocalAddr: from}).DialContext
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, "", err
	}
	var user, address string
	if err := conn.QueryRow(ctx, "SELECT current_user::text, host(inet_server_addr())").Scan(&user, &address); err != nil {
		return nil, "", errors.Join(err, conn.Close(ctx))
	}
	return conn, user + " " + address, nil
}
