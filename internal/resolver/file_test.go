package resolver

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

func TestHostsFileIsAnsweredAsItIsNow(t *testing.T) {
	s := serve(t, &watcher{}, nil)
	look := func(name string, want ...string) {
		t.Helper()
		if got := addresses(s.ask(t, overUDP, question(name, dns.TypeA))); !slices.Equal(got, want) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	look("db.example.test.", "10.1.0.1", "10.1.0.2")
	write(t, s.hosts, "10.3.0.1\tDB.example.test.  db\n")
	look("db.example.test.", "10.3.0.1")
	write(t, s.hosts, "10.3.0.2\tDB.example.test.  db\n") // as large, and perhaps in the same tick
	look("dB.", "10.3.0.2")

	replaced := s.hosts + ".new"
	write(t, replaced, "10.3.0.3 db.example.test\n10.3.0.3 again db.example.test\n::ffff:10.3.0.4 db.example.test\n")
	if err := os.Rename(replaced, s.hosts); err != nil {
		t.Fatal(err)
	}
	look("db.example.test.", "10.3.0.3", "10.3.0.4")

	if err := os.Remove(s.hosts); err != nil {
		t.Fatal(err)
	}
	look("db.example.test.", "10.1.0.1", "10.1.0.2")

	write(t, s.hosts, "10.3.0.5 db.example.test\n")
	look("db.example.test.", "10.3.0.5")
	if err := os.Remove(s.hosts); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(s.hosts, 0o600); err != nil {
		t.Fatal(err)
	}
	look("db.example.test.", "10.3.0.5") // what can't be read is as it was
}

func TestHostsFile(t *testing.T) {
	s := serve(t, &watcher{}, nil)
	write(t, s.hosts, strings.Join([]string{
		"# 10.3.0.9 db.example.test",
		"10.3.0.1 one.test uno # comment",
		"10.3.0.1 eins.test",
		"fd00::1 six.test",
		"fe80::1%lo zoned.test",
		"no-address broken.test",
		"10.3.0.2",
		"10.3.0.3 bad..name ok.test",
	}, "\r\n"))
	tests := []struct {
		ask   string
		qtype uint16
		code  int
		want  []string // the answers' data
	}{
		{"one.test.", dns.TypeA, 0, []string{"10.3.0.1"}},
		{"uno.", dns.TypeA, 0, []string{"10.3.0.1"}},
		{"one.test.", dns.TypeAAAA, 0, nil},
		{"six.test.", dns.TypeAAAA, 0, []string{"fd00::1"}},
		{"six.test.", dns.TypeA, 0, nil},
		{"ok.test.", dns.TypeA, 0, []string{"10.3.0.3"}},
		{"1.0.3.10.in-addr.arpa.", dns.TypePTR, 0, []string{"one.test.", "eins.test."}},
		{"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.D.F.ip6.arpa.", dns.TypePTR, 0, []string{"six.test."}},
		// The server has none of these and no such zones.
		{"zoned.test.", dns.TypeAAAA, dns.RcodeRefused, nil},
		{"broken.test.", dns.TypeA, dns.RcodeRefused, nil},
		{"one.test.", dns.TypeTXT, dns.RcodeRefused, nil},
		{"1.0.1.10.in-addr.arpa.", dns.TypePTR, 0, []string{"db.example.test."}},
	}
	for _, test := range tests {
		answer := s.ask(t, overUDP, question(test.ask, test.qtype))
		var got []string
		for _, rr := range answer.Answer {
			if rr.Header().Name != test.ask {
				t.Errorf("%s was answered for %s", test.ask, rr.Header().Name)
			}
			got = append(got, dns.Field(rr, 1))
		}
		if diff := cmp.Diff(test.want, got); diff != "" || answer.Rcode != test.code {
			t.Errorf("%s %s is %s (-want +got):\n%s", test.ask, dns.TypeToString[test.qtype], dns.RcodeToString[answer.Rcode], diff)
		}
	}
}

func TestNewSaysWhyAFileCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	for name, opts := range map[string]Options{
		"hosts is a folder":     {Watcher: &watcher{}, HostsFile: dir},
		"resolv.conf too large": {Watcher: &watcher{}, ResolvConf: large(t, dir, maxResolvConf+1)},
		"no watcher":            {},
		"a server's port":       {Watcher: &watcher{}, Servers: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:0")}},
	} {
		if _, err := New(opts); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := New(Options{Watcher: &watcher{}, HostsFile: dir + "/none", ResolvConf: dir + "/none"}); err != nil {
		t.Errorf("missing files: %v", err)
	}
}

func large(t *testing.T, dir string, size int64) string {
	path := filepath.Join(dir, "large")
	write(t, path, "")
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestResolvConf(t *testing.T) {
	for text, want := range map[string]string{
		"":                   "127.0.0.1:53",
		"nameserver bogus\n": "127.0.0.1:53",
		"nameserver 10.0.0.1\nnameserver fd00::1":                                                            "10.0.0.1:53 [fd00::1]:53",
		"nameserver fe80::1%eth0\n# nameserver 1\n":                                                          "[fe80::1%eth0]:53",
		"nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver x\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n": "10.0.0.1:53 10.0.0.2:53 10.0.0.3:53",
	} {
		var got []string
		for _, server := range parseResolvConf([]byte(text)).servers {
			got = append(got, server.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: servers %v, want %s", text, got, want)
		}
	}
	c := parseResolvConf([]byte("options timeout:1 attempts:9\n"))
	if c.timeout.Seconds() != 1 || c.attempts != maxAttempts {
		t.Errorf("options were read as %v, %d", c.timeout, c.attempts)
	}
}

func TestSearchDomainsAreTheCurrentOnes(t *testing.T) {
	s := serve(t, &watcher{}, nil)
	for text, want := range map[string][]string{
		"search A.test. b.test\n":            {"a.test", "b.test"},
		"search a.test\ndomain c.test\n":     {"c.test"},
		"domain c.test\nsearch a.test b.c\n": {"a.test", "b.c"},
		"search .\n":                         nil,
	} {
		write(t, s.conf, text)
		if got := s.SearchDomains(); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestServersAreTheCurrentOnes(t *testing.T) {
	// Nobody answers there, and at once.
	s := serve(t, &watcher{}, nil)
	for _, test := range []struct {
		conf string
		code int
	}{
		{"nameserver 10.78.0.1\n", dns.RcodeSuccess},
		{"nameserver " + stranger + "\n", dns.RcodeServerFailure},
		{"nameserver " + stranger + "\nnameserver 10.78.0.1\n", dns.RcodeSuccess},
		{"nameserver " + stranger + "\nnameserver 127.0.0.2\nnameserver 127.0.0.3\nnameserver 10.78.0.1\n", dns.RcodeServerFailure},
	} {
		write(t, s.conf, test.conf)
		for _, network := range []string{overUDP, overTCP} {
			if answer := s.ask(t, network, question("db.example.test.", dns.TypeA)); answer.Rcode != test.code {
				t.Errorf("%q over %s: %s", test.conf, network, dns.RcodeToString[answer.Rcode])
			}
		}
	}
}
