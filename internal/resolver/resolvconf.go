package resolver

import (
	"bytes"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	maxResolvConf = 1 << 20
	// What glibc has (MAXNS, RES_MAXRETRY).
	maxServers  = 3
	maxAttempts = 5
)

// resolvConf is what resolv.conf says, with the defaults of resolv.conf(5).
type resolvConf struct {
	servers  []netip.AddrPort
	search   []string
	named    bool // whether there is a search or domain line
	timeout  time.Duration
	attempts int
}

func parseResolvConf(content []byte) resolvConf {
	// It fails only when reading does.
	parsed, _ := dns.ClientConfigFromReader(bytes.NewReader(content))
	c := resolvConf{
		timeout:  time.Duration(parsed.Timeout) * time.Second,
		attempts: min(parsed.Attempts, maxAttempts),
	}
	for _, server := range parsed.Servers {
		addr, err := netip.ParseAddr(server)
		if err == nil && len(c.servers) < maxServers {
			c.servers = append(c.servers, netip.AddrPortFrom(addr, 53))
		}
	}
	if len(c.servers) == 0 {
		c.servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53)}
	}
	c.named = len(parsed.Search) > 0
	for _, domain := range parsed.Search {
		if domain = canonical(domain); domain != "" {
			c.search = append(c.search, domain)
		}
	}
	return c
}

// searchDomains falls back to the domain of the host's own name, as glibc does.
func (c resolvConf) searchDomains() []string {
	if c.named {
		return slices.Clone(c.search)
	}
	host, err := os.Hostname()
	if err != nil {
		return nil
	}
	if _, domain, _ := strings.Cut(canonical(host), "."); domain != "" {
		return []string{domain}
	}
	return nil
}
