package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
)

// protocols are those that targets may speak, with the variables that are
// theirs and their credentials.
func protocols() []protocol {
	return []protocol{
		{ProtocolPostgres, []about{aboutStatement}, []string{"postgresRole", "postgresCert", "postgresSecret"}},
		{ProtocolSSH, []about{aboutCommand, aboutFile}, []string{"sshCert"}},
		{ProtocolKubernetes, []about{aboutRequest}, []string{"kubeToken"}},
	}
}

type protocol struct {
	name        string
	about       []about
	credentials []string
}

func protocolNames() []string {
	var names []string
	for _, p := range protocols() {
		names = append(names, p.name)
	}
	return names
}

func (d *document) checkTarget(t *TargetSpec) {
	if len(t.Hosts) == 0 {
		d.errorf("spec.hosts", "needs at least one host such as orders.db.example:5432")
	}
	d.checkList("spec.hosts", t.Hosts)
	for i, text := range t.Hosts {
		if _, err := ParseHost(text); err != nil {
			d.errorf(fmt.Sprintf("spec.hosts[%d]", i), "%s", err)
		}
	}
	known := strings.Join(protocolNames(), ", ")
	i := slices.Index(protocolNames(), t.Protocol)
	if i < 0 {
		if t.Protocol == "" {
			d.errorf("spec.protocol", "is missing; it is one of %s", known)
		} else {
			d.errorf("spec.protocol", "unknown protocol %s; known are %s", quote(t.Protocol), known)
		}
		return
	}
	d.checkTLS(t)
	d.checkHostKeys(t)
	d.checkCredential(t, protocols()[i])
}

func (d *document) checkTLS(t *TargetSpec) {
	if t.Protocol == ProtocolSSH {
		if d.has("spec.tls") {
			d.errorf("spec.tls", "has no place at an ssh target, whose server is known by hostKeys")
		}
		return
	}
	tls := &t.TLS
	setDefault(&tls.Mode, TLSVerifyFull)
	d.checkOptionalFile("spec.tls.caFile", tls.CAFile)
	if d.has("spec.tls.serverName") {
		name := strings.ToLower(tls.ServerName)
		if _, err := netip.ParseAddr(name); err != nil && checkHostName(name) != nil {
			d.errorf("spec.tls.serverName", "%s is neither a host name nor an address", quote(tls.ServerName))
		}
	}
	switch tls.Mode {
	case TLSVerifyFull:
	case TLSDisable:
		switch {
		case t.Protocol == ProtocolKubernetes:
			d.errorf("spec.tls.mode", "disable is not for kubernetes, whose tokens would be sent in the clear; use verify-full")
		case tls.CAFile != "" || tls.ServerName != "":
			d.errorf("spec.tls.mode", "is disable, so caFile and serverName would have no effect; remove them, or use verify-full")
		}
	default:
		d.errorf("spec.tls.mode", "%s is not accepted; use verify-full, or disable where the network itself is trusted", quote(tls.Mode))
	}
}

func (d *document) checkHostKeys(t *TargetSpec) {
	if t.Protocol != ProtocolSSH {
		if d.has("spec.hostKeys") {
			d.errorf("spec.hostKeys", "is for ssh targets; this one's server is known by tls")
		}
		return
	}
	if t.HostKeys == nil {
		t.HostKeys = &HostKeysSpec{}
	}
	setDefault(&t.HostKeys.KnownHostsFile, "/etc/ssh/ssh_known_hosts")
	d.checkOptionalFile("spec.hostKeys.knownHostsFile", t.HostKeys.KnownHostsFile)
}

func (d *document) checkCredential(t *TargetSpec, p protocol) {
	const at = "spec.credential"
	for _, other := range protocols() {
		for _, credential := range other.credentials {
			if other.name != p.name && d.has(at+"."+credential) {
				d.errorf(at+"."+credential, "is a credential of %s targets; those of %s have %s", other.name, p.name, oneOf(p.credentials))
				return
			}
		}
	}
	d.checkOneOf(at, p.credentials...)
	switch c := &t.Credential; {
	case c.PostgresRole != nil:
		d.checkPostgresRole(c.PostgresRole)
	case c.PostgresCert != nil:
		d.checkPostgresCert(c.PostgresCert, t.TLS)
	case c.PostgresSecret != nil:
		d.checkPostgresSecret(c.PostgresSecret)
	case c.SSHCert != nil:
		d.checkSSHCert(c.SSHCert)
	case c.KubeToken != nil:
		d.checkKubeToken(c.KubeToken)
	}
}

// checkSecret wants the source of a secret that must be there.
func (d *document) checkSecret(at string, s SecretSource) {
	d.checkOneOf(at, "file")
	d.checkOptionalFile(at+".file", s.File)
}

// checkTTL fills in the default of a credential's life and bounds it.
func (d *document) checkTTL(at string, ttl *Duration, byDefault, least time.Duration) {
	if !d.has(at) {
		*ttl = Duration(byDefault)
	}
	if t := time.Duration(*ttl); t < least || t > 24*time.Hour {
		d.errorf(at, "must be from %s to 24h", short(least))
	}
}

// short writes whole minutes without the "0s" that a Duration ends with.
func short(d time.Duration) string {
	if d%time.Minute == 0 {
		return strings.TrimSuffix(d.String(), "0s")
	}
	return d.String()
}

func (d *document) checkPostgresRole(r *PostgresRoleSpec) {
	const at = "spec.credential.postgresRole"
	d.checkSecret(at+".adminFrom", r.AdminFrom)
	d.checkList(at+".memberOf", r.MemberOf)
	for i, role := range r.MemberOf {
		d.checkRoleName(fmt.Sprintf("%s.memberOf[%d]", at, i), role)
	}
	if d.has(at + ".owner") {
		d.checkRoleName(at+".owner", r.Owner)
	}
	d.checkTTL(at+".ttl", &r.TTL, 15*time.Minute, time.Minute)
	if !d.has(at + ".connectionLimit") {
		r.ConnectionLimit = 20
	}
	if r.ConnectionLimit < 1 || r.ConnectionLimit > 10000 {
		d.errorf(at+".connectionLimit", "must be from 1 to 10000")
	}
}

// checkRoleName wants what can be a role's name.
func (d *document) checkRoleName(at, role string) {
	switch {
	case strings.TrimSpace(role) == "":
		d.errorf(at, "is empty")
	case len(role) > 63: // NAMEDATALEN - 1, PostgreSQL's limit of an identifier
		d.errorf(at, "a role's name has at most 63 bytes")
	case strings.HasPrefix(role, "pg_") && strings.HasSuffix(at, ".owner"):
		d.errorf(at, "%s is a predefined role, which must not own anything", quote(role))
	}
}

func (d *document) checkUser(at, user string) {
	if !d.has(at) {
		d.errorf(at, "is missing; it is the role that sessions are of")
		return
	}
	d.checkRoleName(at, user)
}

func (d *document) checkPostgresCert(c *PostgresCertSpec, tls TLSSpec) {
	const at = "spec.credential.postgresCert"
	if tls.Mode == TLSDisable {
		d.errorf(at, "needs TLS, in which the certificate is shown; spec.tls.mode is disable")
	}
	d.checkUser(at+".user", c.User)
	setDefault(&c.CommonName, c.User)
	// RFC 5280, ub-common-name.
	if strings.TrimSpace(c.CommonName) == "" && d.has(at+".commonName") || len(c.CommonName) > 64 {
		d.errorf(at+".commonName", "must have 1 to 64 bytes")
	}
	d.checkNeededFile(at+".caFile", c.CAFile)
	d.checkNeededFile(at+".keyFile", c.KeyFile)
	d.checkTTL(at+".ttl", &c.TTL, 5*time.Minute, time.Minute)
	if c.AdminFrom != nil {
		d.checkSecret(at+".adminFrom", *c.AdminFrom)
	}
}

func (d *document) checkNeededFile(at, file string) {
	if !d.has(at) {
		d.errorf(at, "is missing")
	}
	d.checkOptionalFile(at, file)
}

func (d *document) checkPostgresSecret(s *PostgresSecretSpec) {
	const at = "spec.credential.postgresSecret"
	d.checkUser(at+".user", s.User)
	d.checkSecret(at+".passwordFrom", s.PasswordFrom)
	if s.AdminFrom != nil {
		d.checkSecret(at+".adminFrom", *s.AdminFrom)
	}
}

func (d *document) checkSSHCert(c *SSHCertSpec) {
	const at = "spec.credential.sshCert"
	if len(c.Principals) == 0 {
		d.errorf(at+".principals", "needs at least one name, or the certificate would be good for any account")
	}
	d.checkList(at+".principals", c.Principals)
	for i, name := range c.Principals {
		if strings.ContainsFunc(name, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
			d.errorf(fmt.Sprintf("%s.principals[%d]", at, i), "%s holds a comma or white space; list one name an item", quote(name))
		}
	}
	d.checkTTL(at+".ttl", &c.TTL, 5*time.Minute, time.Minute)
	if d.has(at+".forceCommand") && strings.TrimSpace(c.ForceCommand) == "" {
		d.errorf(at+".forceCommand", "is empty")
	}
	d.checkList(at+".sourceAddress", c.SourceAddress)
	for i, text := range c.SourceAddress {
		if _, ok, err := parsePrefix(text); err != nil {
			d.errorf(fmt.Sprintf("%s.sourceAddress[%d]", at, i), "%s: %s", quote(text), err)
		} else if !ok {
			d.errorf(fmt.Sprintf("%s.sourceAddress[%d]", at, i), "%s is neither an address nor a CIDR", quote(text))
		}
	}
}

func (d *document) checkKubeToken(k *KubeTokenSpec) {
	const at = "spec.credential.kubeToken"
	d.checkSecret(at+".adminFrom", k.AdminFrom)
	namespace, name, ok := strings.Cut(k.ServiceAccount, "/")
	switch {
	case k.ServiceAccount == "":
		d.errorf(at+".serviceAccount", `is missing; it is "namespace/name"`)
	case !ok || !isName(namespace) || !isName(name):
		d.errorf(at+".serviceAccount", `%s is no "namespace/name"`, quote(k.ServiceAccount))
	}
	d.checkTTL(at+".ttl", &k.TTL, 10*time.Minute, 10*time.Minute)
}
