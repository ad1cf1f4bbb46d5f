package policy

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

func (d *document) checkNode(n *NodeSpec) {
	if d.has("spec.cluster") {
		d.checkName("spec.cluster", n.Cluster)
	}
	if d.has("spec.cgroup") && (n.Cgroup == "" || path.Clean("/"+n.Cgroup) != "/"+n.Cgroup) {
		d.errorf("spec.cgroup", `must be a path below the cgroup v2 mount, such as "chaperone", without leading "/" and without ".."`)
	}
	d.checkBelt(n)
	d.checkDNS(&n.DNS)
	if n.Kubernetes != nil {
		d.checkOptionalFile("spec.kubernetes.kubeconfig", n.Kubernetes.Kubeconfig)
	}
	d.checkOptionalFile("spec.pinDir", n.PinDir)
	d.checkOptionalFile("spec.runDir", n.RunDir)
	d.checkRange("spec.listenPort", n.ListenPort, 1, 65535)
	d.checkRange("spec.limits.sessions", n.Limits.Sessions, 1, 1_000_000)
	d.checkRange("spec.limits.sessionsPerJob", n.Limits.SessionsPerJob, 1, 1_000_000)
	d.checkRange("spec.limits.approvals", n.Limits.Approvals, 1, 100_000)
	d.checkRange("spec.limits.approvalsPerJob", n.Limits.ApprovalsPerJob, 1, 100_000)
	const atTimeout = "spec.limits.connectTimeout"
	if t := time.Duration(n.Limits.ConnectTimeout); d.has(atTimeout) && (t < 100*time.Millisecond || t > 10*time.Minute) {
		d.errorf(atTimeout, "must be from 100ms to 10m")
	}
	if d.has("spec.journal.maxBytes") && n.Journal.MaxBytes < 16<<20 {
		d.errorf("spec.journal.maxBytes", "must be at least 16MiB")
	}
	d.checkNATS(&n.NATS)
	d.checkAuthority(n)
	d.checkKeys(n.Keys)
	n.setDefaults()
	if n.Limits.SessionsPerJob > n.Limits.Sessions {
		d.errorf("spec.limits.sessionsPerJob", "must not be more than sessions, which is %d", n.Limits.Sessions)
	}
	if n.Limits.ApprovalsPerJob > n.Limits.Approvals {
		d.errorf("spec.limits.approvalsPerJob", "must not be more than approvals, which is %d", n.Limits.Approvals)
	}
}

// checkAuthority wants Ed25519 public keys. They are no secrets, but what
// stands in their place by mistake may be.
func (d *document) checkAuthority(n *NodeSpec) {
	const at = "spec.authority.keys"
	d.checkList(at, n.Authority.Keys)
	for i, text := range n.Authority.Keys {
		if key, err := base64.StdEncoding.DecodeString(text); text != "" && (err != nil || len(key) != ed25519.PublicKeySize) {
			d.errorf(fmt.Sprintf("%s[%d]", at, i), `is no Ed25519 public key in base64, as "chaperone-sink key" prints it`)
		}
	}
}

func (d *document) checkKeys(keys map[string]SecretSource) {
	if len(keys) > maxItems {
		d.errorf("spec.keys", "has more than %d items", maxItems)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		at := "spec.keys." + name
		d.checkName(at, name)
		d.checkSecret(at, keys[name])
	}
}

func (d *document) checkBelt(n *NodeSpec) {
	switch n.Belt {
	case BeltNode:
	case BeltPlanners, "":
		if len(n.Exempt) > 0 {
			d.errorf("spec.exempt", "has no effect unless belt is node")
		}
	default:
		d.errorf("spec.belt", "%s is neither planners nor node", quote(n.Belt))
	}
	d.checkList("spec.exempt", n.Exempt)
	for i, cgroup := range n.Exempt {
		if path.Clean("/"+cgroup) != "/"+cgroup {
			d.errorf(fmt.Sprintf("spec.exempt[%d]", i), `must be a path below the cgroup v2 mount, without leading "/" and without ".."`)
		}
	}
}

func (d *document) checkDNS(s *DNSSpec) {
	d.checkList("spec.dns.servers", s.Servers)
	for i, text := range s.Servers {
		if _, err := ParseServer(text); err != nil {
			d.errorf(fmt.Sprintf("spec.dns.servers[%d]", i), "%s is no address, with or without a port", quote(text))
		}
	}
}

// ParseServer reads the address of a DNS server, "address" or "address:port".
func ParseServer(text string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	server, err := netip.ParseAddrPort(text)
	if err == nil && server.Port() == 0 {
		err = errors.New("the port is 0")
	}
	return server, err
}

// checkRange checks a number that is there; what is left out gets its default.
func (d *document) checkRange(at string, n, least, most int) {
	if d.has(at) && (n < least || n > most) {
		d.errorf(at, "must be from %d to %d", least, most)
	}
}

func (d *document) checkNATS(n *NATSSpec) {
	const at = "spec.nats"
	if d.has(at) && !d.has(at+".url") {
		d.errorf(at+".url", "is missing; it is an address such as tls://nats.example:4222")
	}
	if d.has(at + ".url") {
		d.checkNATSURL(at+".url", n.URL)
	}
	d.checkOptionalFile(at+".credsFile", n.CredsFile)
	d.checkOptionalFile(at+".nkeyFile", n.NKeyFile)
	d.checkOptionalFile(at+".caFile", n.CAFile)
	if d.has(at+".credsFile") && d.has(at+".nkeyFile") {
		d.errorf(at+".nkeyFile", "has no place beside credsFile; only one of them may be set")
	}
}

// checkNATSURL doesn't repeat the value, which may hold a password.
func (d *document) checkNATSURL(at, list string) {
	schemes := []string{"nats", "tls", "ws", "wss"}
	for one := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		switch {
		case err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme):
			d.errorf(at, "must be one or more of %s://host:port, separated by commas", strings.Join(schemes, "://host:port, "))
		case u.User != nil:
			d.errorf(at, "must not hold a credential; use credsFile or nkeyFile")
		}
	}
}
